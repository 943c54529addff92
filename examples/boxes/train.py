"""Train a tiny detector with each box loss, by one recipe, and tell the IoU that its boxes reach.

python examples/boxes/train.py                           # the 951 trees of deepforest
python examples/boxes/train.py --synthetic --loss ciou   # drawn crowns, one loss
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import nearfar
from nearfar.errors import NearfarError

sys.path.insert(0, str(Path(__file__).parent))
from data import Tile, crowns, folder_of_deepforest, split, trees
from detector import STRIDE, Detector, assign

RECIPE = "focal + 2.0 * {loss}"
LOSSES = (
    "l1",
    "smooth_l1",
    "iou",
    "giou",
    "diou",
    "ciou",
    "eiou",
    "siou",
    "mpdiou",
    "wiou",
    "bounded_iou",
    "focal_iou(eiou)",
    "alpha_iou(ciou, power=2)",
    "inner_iou(ciou)",
)
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", action="append", help="only this one, as a recipe writes it; may be repeated")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="the folder deepforest/data of its wheel")
    parser.add_argument("--synthetic", action="store_true", help="drawn crowns in place of trees")
    given = parser.parse_args()
    try:
        tiles = crowns(64, seed=0) if given.synthetic else trees(given.data or folder_of_deepforest())
        compare(tiles, given.loss or LOSSES, given.epochs, given.seed)
    except NearfarError as error:
        sys.exit(f"{Path(__file__).name}: {error}")


def compare(tiles: list[Tile], losses: list[str] | tuple[str, ...], epochs: int, seed: int) -> None:
    """Print a line for each loss."""
    training, testing = split(tiles)
    told = [sum(len(tile.boxes) for tile in part) for part in (training, testing)]
    print(f"{told[0]} boxes in {len(training)} tiles to train with, {told[1]} in {len(testing)} to test with")
    print(f"{'criterion':<38} {'mean IoU':>9} {'≥ 0.5':>7} {'≥ 0.75':>7} {'seconds':>8}")
    torch.manual_seed(seed)
    report("untrained", reached(Detector(), testing), 0.0)
    for loss in losses:
        begun = time.perf_counter()
        recipe = RECIPE.format(loss=loss)
        model = trained(recipe, training, epochs, seed)
        report(recipe, reached(model, testing), time.perf_counter() - begun)


def report(name: str, iou: Tensor, seconds: float) -> None:
    shares = " ".join(f"{(iou >= bar).float().mean():7.1%}" for bar in (0.5, 0.75))
    print(f"{name:<38} {iou.mean():9.3f} {shares} {seconds:8.0f}", flush=True)


def trained(recipe: str, tiles: list[Tile], epochs: int, seed: int) -> Detector:
    """A detector trained by a recipe; the same seed gives every recipe the same start and the same batches."""
    torch.manual_seed(seed)
    model = Detector()
    # Lengths are in strides, so that losses which depend on the unit are of the size of those which do not.
    criterion = nearfar.compose(recipe, image_size=tiles[0].image.shape[-1] / STRIDE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    steps = epochs * -(-len(tiles) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(epochs):
        for batch in batches(tiles):
            scores, boxes = model(torch.stack([tile.image for tile in batch]))
            owner = torch.stack([assign(tile.boxes, scores.shape[-1]) for tile in batch])
            positive = owner >= 0
            count = positive.sum().clamp_min(1)
            loss = criterion(
                logits=scores.flatten(),
                targets=positive.flatten(),
                logit_normalizer=count,
                pred_boxes=boxes.permute(0, 2, 3, 1)[positive] / STRIDE,
                target_boxes=targets(batch, owner) / STRIDE,
                box_normalizer=count,
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def batches(tiles: list[Tile]) -> Iterator[list[Tile]]:
    """Tiles in random order, each turned over along an axis or not."""
    order = torch.randperm(len(tiles)).tolist()
    for start in range(0, len(order), BATCH):
        yield [flipped(tiles[i]) for i in order[start : start + BATCH]]


def flipped(tile: Tile) -> Tile:
    image, boxes, side = tile.image, tile.boxes, tile.image.shape[-1]
    if torch.rand(()) < 0.5:
        image, boxes = image.flip(2), torch.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], 1)
    if torch.rand(()) < 0.5:
        image, boxes = image.flip(1), torch.stack([boxes[:, 0], side - boxes[:, 3], boxes[:, 2], side - boxes[:, 1]], 1)
    return Tile(image, boxes)


def targets(batch: list[Tile], owner: Tensor) -> Tensor:
    """The box of every positive place, in the order in which a mask gives them."""
    return torch.cat([tile.boxes[mine[mine >= 0]] for tile, mine in zip(batch, owner, strict=True)])


@torch.no_grad()
def reached(model: Detector, tiles: list[Tile]) -> Tensor:
    """The IoU of the box at every place that belongs to a target, with that target."""
    overlap = nearfar.create_loss("iou", reducer="none")
    found = []
    for tile in tiles:
        scores, boxes = model(tile.image[None])
        owner = assign(tile.boxes, scores.shape[-1])
        found.append(1 - overlap(boxes[0].permute(1, 2, 0)[owner >= 0], targets([tile], owner[None])))
    return torch.cat(found)


if __name__ == "__main__":
    main()
