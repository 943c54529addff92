"""The table a run ends with: raw pixels, the untrained and the trained network on classes none of them was shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nearfar.data import ImageSource
from nearfar.data.prepare import resize
from nearfar.evaluate.ranking import ranking_scores
from nearfar.evaluate.retrieval import query_scores
from nearfar.evaluate.topk import Engine
from nearfar.inference.features import Flip, features
from nearfar.models import EmbeddingModel
from nearfar.train.sources import leave_interrupts_to_parent

#: Metric → the head of its column.
METRICS: Mapping[str, str] = {
    "recall@1": "recall@1",
    "recall@5": "recall@5",
    "map@r": "MAP@R",
    "r_precision": "R-precision",
}
#: Row → how it is called in the table.
ROWS: Mapping[str, str] = {"raw": "raw pixels", "untrained": "untrained network", "trained": "trained network"}

Scores = dict[str, float]

#: The order in which the metrics of queries among all others come.
_TABLE = ("recall@1", "recall@5", "r_precision", "map@r")

# Always the same, because the rounding of a convolution depends on it.
_BATCH = 256
_RAW_SIDE = 32


def embed(
    model: EmbeddingModel, source: ImageSource, *, device: torch.device, workers: int = 0, flip: Flip = "none"
) -> Tensor:
    """Embed all images of a source with the model in evaluation mode.

    Parameters
    ----------
    model : EmbeddingModel
        It is moved to ``device``; its mode is afterwards what it was.
    source : ImageSource
        n images.
    device : torch.device
    workers : int
        Processes that load images.
    flip : {"none", "sum", "concatenate"}
        As in :func:`~nearfar.inference.features`.

    Returns
    -------
    Tensor
        (n, embedding_size) float32 on the CPU, twice as wide where concatenated.
    """
    return torch.cat([found for found, _ in embedded(model, source, device=device, workers=workers, flip=flip)])


def embedded(
    model: EmbeddingModel, source: ImageSource, *, device: torch.device, workers: int = 0, flip: Flip = "none"
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same a batch at a time, (b, embedding_size), each with its labels (b,)."""
    model.to(device)
    for images, labels in _loader(source, workers):
        yield features(model, images.to(device), flip=flip), labels


def raw_pixels(source: ImageSource, *, workers: int = 0) -> Tensor:
    """Flatten the RGB images at their own size, or scaled to 32 pixels a side where they are larger: (n, 3·H·W)."""
    rows = []
    for images, _ in _loader(source, workers):
        pixels = images.float() / 255
        rows.append((resize(pixels, _RAW_SIDE) if max(pixels.shape[-2:]) > _RAW_SIDE else pixels).flatten(1))
    return torch.cat(rows)


def _loader(source: ImageSource, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches in order; with a generator of its own, because a loader draws from the global one otherwise."""
    dataset: Dataset[Any] = source
    generator = torch.Generator()
    return DataLoader(
        dataset, _BATCH, num_workers=workers, worker_init_fn=leave_interrupts_to_parent, generator=generator
    )


def score(embeddings: Tensor, source: ImageSource, *, engine: Engine = "torch") -> Scores:
    """The metrics of the table, by cosine similarity: each image a query among all others.

    Where the source says what its queries are, those search the gallery, without what their own cameras saw of their
    class.
    """
    means = scores_of_queries(embeddings, source, engine=engine)[1].mean(0)
    return dict(zip(METRICS, means.tolist(), strict=True))


def scores_of_queries(embeddings: Tensor, source: ImageSource, *, engine: Engine = "torch") -> tuple[Tensor, Tensor]:
    """The metrics of the table for each query, of which :func:`score` is the average.

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.
    source : ImageSource
        n images.
    engine : {"torch", "faiss"}
        As in :func:`~nearfar.evaluate.nearest`; queries and their gallery are ranked to the end, by torch.

    Returns
    -------
    queries : Tensor
        (rows,) int64, the images that ask and have something to find.
    scores : Tensor
        (rows, 4) float64, in the order of :data:`METRICS`.

    Raises
    ------
    InputError
        Nothing can be found.
    """
    labels, asks, cameras = source.labels, source.queries, source.cameras
    if asks is None:
        rows, values = query_scores(embeddings, labels, ks=(1, 5), engine=engine)
        return rows, values[:, [list(_TABLE).index(name) for name in METRICS]]
    rows, scores = ranking_scores(
        embeddings[asks],
        labels[asks],
        embeddings[~asks],
        labels[~asks],
        cameras=None if cameras is None else cameras[asks],
        gallery_cameras=None if cameras is None else cameras[~asks],
        ks=(1, 5),
    )
    return asks.nonzero()[rows, 0], torch.stack([scores[name.replace("recall", "cmc")] for name in METRICS], 1)


def told_queries(source: ImageSource, *, by_camera: bool = True) -> str:
    """What is searched in what, for the tag of a figure; ``by_camera``: without what the own camera saw."""
    if source.queries is None:
        return "each image a query against all others"
    left_out = " but what their own camera saw of their class" if by_camera and source.cameras is not None else ""
    return f"{int(source.queries.sum())} queries against a gallery of {int((~source.queries).sum())}{left_out}"


def compare(
    source: ImageSource,
    *,
    untrained: EmbeddingModel,
    trained: EmbeddingModel,
    device: torch.device,
    workers: int = 0,
    flip: Flip = "none",
    engine: Engine = "torch",
) -> dict[str, Scores]:
    """Score the three rows of the table on one source; ``flip`` is of the networks' images."""

    def judged(model: EmbeddingModel) -> Scores:
        return score(embed(model, source, device=device, workers=workers, flip=flip), source, engine=engine)

    raw = score(raw_pixels(source, workers=workers), source, engine=engine)
    return {"raw": raw, "untrained": judged(untrained), "trained": judged(trained)}


def told_no_better(
    rows: Mapping[str, Mapping[str, float]], metric: str, *, best: int, steps: int, validations: int
) -> str:
    """What to look at where the trained network finds no more than what nobody trained; empty where it does.

    Parameters
    ----------
    rows
        As :func:`compare` gives them.
    metric
        What the weights were kept by, one of :data:`METRICS`.
    best, steps
        After how many steps they were, of how many.
    validations
        How often it was looked at.
    """
    other = max(("raw", "untrained"), key=lambda row: rows[row][metric])
    found, least = rows["trained"][metric], rows[other][metric]
    if found > least:
        return ""
    return (
        f"the trained network is no better than {'raw pixels' if other == 'raw' else 'an untrained one'} "
        f"({METRICS[metric]} {100 * found:.1f} against {100 * least:.1f}): "
    ) + _what_to_look_at(least, best, steps, validations)


def _what_to_look_at(least: float, best: int, steps: int, validations: int) -> str:
    """What may help, as far as the course of the validation tells; the loss alone tells the rest."""
    if least == 1:
        return "there is nothing more to be found, so these test classes tell no networks apart"
    if validations == 1:
        return (
            "it was validated once, so nothing says whether it was still getting better; validate more often "
            "(validation.every) and train longer (epochs)"
        )
    if best == steps:
        return "it validated best at its last step and may not have been done, so train it longer first (epochs)"
    return (
        f"it validated best after {best} of {steps} steps, so longer will not help. See the loss in `nearfar report`: "
        "if it fell, the training classes were learned by heart, and more of them or augment help; if not, another "
        "optimizer.lr or criterion"
    )


def render(rows: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Draw the table, in per cent; with lines and colour on a terminal, as plain columns elsewhere."""
    cells = [[ROWS[row], *(f"{100 * values[name]:.1f}" for name in METRICS)] for row, values in rows.items()]
    if sys.stdout.isatty():
        return _drawn(cells, title)
    heads = ["", *METRICS.values()]
    widths = [max(len(line[column]) for line in [heads, *cells]) for column in range(len(heads))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in [heads, *cells]
    ]
    return "\n".join([title, *lines])


def _drawn(cells: list[list[str]], title: str) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="")
    table.add_column("")
    for head in METRICS.values():
        table.add_column(head, justify="right")
    for row in cells:
        table.add_row(*row, style="bold" if row[0] == ROWS["trained"] else None)
    console = Console()
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
