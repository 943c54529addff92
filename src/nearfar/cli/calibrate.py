"""``nearfar calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nearfar.inference import Calibration, Embeddings


@click.command("calibrate")
@click.argument("embeddings", type=click.Path(path_type=Path))
@click.option("--far", type=float, default=1e-3, show_default=True, help="The false-accept rate wanted.")
@click.option(
    "--labels", type=click.Path(path_type=Path), metavar="TABLE", help="Who is on each image: columns path and label."
)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    metavar="TABLE",
    help="The pairs to look at, in place of all: columns a, b and same.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A JSON file for `verify`.")
def command(embeddings: Path, far: float, labels: Path | None, pairs: Path | None, output: Path) -> None:
    """Find the threshold that accepts at most a share of impostors, on EMBEDDINGS of labelled images.

    Without a table, the name of the folder that an image is in is its identity. With --pairs, what is looked at is the
    pairs that the table lists, of images by their paths from its own folder.

    \b
    nearfar embed runs/latest people/ -o people.parquet
    nearfar calibrate people.parquet --far 0.001 -o threshold.json
    nearfar calibrate people.parquet --far 0.001 --pairs pairs.csv -o threshold.json
    """
    from nearfar.errors import ConfigError
    from nearfar.files import require_folder

    if output.exists():
        raise ConfigError(f"{output} is there already: give another name")
    require_folder(output)
    if pairs is not None and labels is not None:
        raise ConfigError("--pairs tells who is the same and --labels who is who: give one of them")
    from nearfar.inference import read_embeddings

    found = read_embeddings(embeddings)
    made, of = _of_all(found, labels, far) if pairs is None else _of_listed(found, pairs, far)
    made.write(output)
    accepts = f"accepts {100 * made.tar:.1f}% of {made.genuine} genuine pairs"
    click.echo(f"threshold {made.threshold:.4f}: {accepts}", nl=False)
    if made.interval is not None:
        click.echo(f" (95%: {100 * made.interval[0]:.1f} to {100 * made.interval[1]:.1f})", nl=False)
    click.echo(f" and {made.far:.2g} of {made.impostors} impostor pairs {of}")
    click.echo(f"wrote {output}")


def _of_all(found: Embeddings, labels: Path | None, far: float) -> tuple[Calibration, str]:
    import warnings

    import torch

    from nearfar.data.tables import labels_of
    from nearfar.errors import NearfarWarning
    from nearfar.inference import calibrate

    names = found.folders if labels is None else labels_of(labels, found.paths)
    if labels is None and (scattered := found.scattered()):
        warnings.warn(
            f"{len(scattered)} folders of one name are in several places, first {scattered[0]!r}, and are taken for "
            "one identity: where they are not, give --labels TABLE",
            NearfarWarning,
            stacklevel=1,
        )
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    identities = torch.tensor([number[name] for name in names])
    model, flip = _about(found)
    return calibrate(found.vectors, identities, far, model=model, flip=flip), f"of {len(number)} identities"


def _of_listed(found: Embeddings, pairs: Path, far: float) -> tuple[Calibration, str]:
    from nearfar.data.pairlist import read_pair_list
    from nearfar.evaluate import pair_similarities
    from nearfar.inference import calibrate_pairs

    listed = read_pair_list(pairs)
    places = listed.places(found.paths, "images of the embeddings", files=True)
    similarities = pair_similarities(found.vectors, places[listed.first], places[listed.second])
    model, flip = _about(found)
    return calibrate_pairs(similarities, listed.same, far, model=model, flip=flip), f"of {pairs}"


def _about(found: Embeddings) -> tuple[str, str]:
    """What a threshold depends on, as embeddings tell it: the model and what was done with mirror images."""
    return str(found.about.get("weights", "")), str(found.about.get("flip", "none"))
