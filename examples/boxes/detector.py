"""A detector of 57,000 numbers: at every fourth pixel a score, and how far a box reaches from there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Pixels from one place to the next.
STRIDE = 4
#: How near to a box's centre a place is to be to learn the box, in strides.
RADIUS = 1.5
#: How far a box reaches where the network says 0: what it learns are logarithms of that.
REACH = 10.0


class Detector(nn.Module):
    """Scores (n, 1, 32, 32), and boxes (n, 4, 32, 32) xyxy in pixels, of images (n, 3, 128, 128)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
            return nn.Sequential(convolution, nn.GroupNorm(4, outputs), nn.ReLU())

        self.body = nn.Sequential(
            layer(3, width, 2), layer(width, width, 2), *(layer(width, width, dilation=d) for d in (1, 2, 4, 2, 1))
        )
        self.score = nn.Conv2d(width, 1, 1)
        self.reach = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.score.bias, -4.0)  # nearly nothing is a tree, so that the first steps are calm
        nn.init.normal_(self.reach.weight, std=0.01)
        nn.init.zeros_(self.reach.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.body(images - 0.5)
        reach = REACH * self.reach(seen).clamp(-4, 4).exp()
        place = places(reach.shape[-1])
        return self.score(seen), torch.cat([place - reach[:, :2], place + reach[:, 2:]], 1)


def places(side: int) -> Tensor:
    """(2, side, side): x and y of every place."""
    along = (torch.arange(float(side)) + 0.5) * STRIDE
    return torch.stack([along.expand(side, side), along[:, None].expand(side, side)])


def assign(boxes: Tensor, side: int) -> Tensor:
    """(side, side): the box (n, 4) that each place learns, the smallest whose middle it is in; or −1."""
    place = places(side)[None]  # (1, 2, side, side)
    low, high = boxes[:, :2, None, None], boxes[:, 2:, None, None]
    middle = (low + high) / 2
    inside = ((place > low) & (place < high) & ((place - middle).abs() <= RADIUS * STRIDE)).all(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None, None].expand_as(inside)
    smallest = torch.where(inside, area, torch.inf).min(0)
    return torch.where(smallest.values < torch.inf, smallest.indices, -1)
