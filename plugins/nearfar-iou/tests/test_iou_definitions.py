"""Every box loss against its formula in 40 digits, differentiated numerically, with what is held constant held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mpmath as mp
import pytest
import torch
from mpmath import mpf
from torch import Tensor

from nearfar.nn.reducers import NoReduction
from nearfar_iou.alpha_iou import AlphaIoU
from nearfar_iou.bounded_iou import BoundedIoU
from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.ciou import CIoU
from nearfar_iou.diou import DIoU
from nearfar_iou.eiou import EIoU
from nearfar_iou.focal_iou import FocalIoU
from nearfar_iou.giou import GIoU
from nearfar_iou.inner_iou import InnerIoU
from nearfar_iou.iou import IoU
from nearfar_iou.mpdiou import MPDIoU
from nearfar_iou.siou import SIoU
from nearfar_iou.wiou import WIoU

Pair = tuple[list[float], list[float]]
Span = tuple[mpf, mpf]

PROPER: list[Pair] = [
    ([0, 0, 10, 10], [2, 3, 12, 9]),  # overlapping
    ([0, 0, 10, 10], [2, 3, 7, 9]),  # target within
    ([3, 4, 5, 6], [2, 3, 7, 9]),  # prediction within
    ([0, 0, 1, 1], [5, 7, 6, 9]),  # apart in both axes
    ([0, 0, 4, 4], [1, 6, 3, 9]),  # apart in one
    ([-3, -2, 1.5, 7], [-1, -4, 9, 0.5]),
    ([0, 0, 10, 9], [0.01, 0.02, 10.03, 8.99]),  # nearly right
    ([1e-4, 2e-4, 3e-4, 7e-4], [1.5e-4, 1e-4, 5e-4, 4.3e-4]),  # small
    ([0, 0, 2e-4, 1e-4], [3, 4, 5, 9]),  # small beside large
]
TIED: list[Pair] = [
    ([0, 0, 10, 8], [0, 0, 10, 10]),  # three shared edges
    ([0, 0, 5, 5], [5, 1, 9, 4]),  # touching
    ([0, 0, 5, 5], [0, 0, 5, 5]),  # equal
    ([0, 0, 6, 4], [1, 1, 5, 3]),  # one centre, one aspect
    ([1, 1, 1, 4], [0, 0, 5, 5]),  # a line within
    ([7, 1, 7, 4], [0, 0, 5, 5]),  # a line apart
    ([1, 1, 4, 4], [2, 0, 2, 5]),  # a line as target
]
IMPROPER: list[Pair] = [
    ([10, 10, 0, 0], [0, 0, 10, 10]),  # inverted in both axes, over the target
    ([4, 1, 2, 6], [0, 0, 7, 7]),  # inverted in one, within
    ([20, 1, 12, 6], [0, 0, 7, 7]),  # inverted in one, apart
    ([9, 8, 3, 2], [0, 0, 6, 5.5]),
    ([1, 1, 3, 3], [6, 0, 2, 5]),  # an inverted target
    ([5, 0, 2, 3], [4, 1, 1, 2]),  # both inverted
]


def span(low: mpf, high: mpf) -> Span:
    """An axis of a box; an inverted one is a point at its middle."""
    return (low, high) if low <= high else ((low + high) / 2,) * 2


@dataclass(frozen=True)
class Geometry:
    """What the formulas speak of, in the papers' letters: lower case of the prediction, upper case of the target."""

    iou: mpf
    empty: mpf  # (|C| − |U|) / |C|
    fold: mpf
    dx: mpf
    dy: mpf
    w: mpf
    h: mpf
    W: mpf
    H: mpf
    Cw: mpf
    Ch: mpf
    corners: mpf  # d1² + d2²

    @classmethod
    def of(cls, pred: Sequence[mpf], target: Sequence[mpf], ratio: float = 1.0) -> Geometry:
        overlap = area_p = area_t = hull_area = mpf(1)
        fold = corners = mpf(0)
        sides, away = [], []
        for axis in (0, 1):
            p1, p2 = span(pred[axis], pred[axis + 2])
            t1, t2 = span(target[axis], target[axis + 2])
            if pred[axis + 2] < pred[axis]:
                depth = pred[axis] - pred[axis + 2]
                fold += depth / (depth + (t2 - t1))
            (p1, p2), (t1, t2) = (scaled(*each, ratio) for each in ((p1, p2), (t1, t2)))
            hull = max(p2, t2) - min(p1, t1)
            sides.append((p2 - p1, t2 - t1, hull))
            away.append((t1 + t2 - p1 - p2) / 2)
            corners += (p1 - t1) ** 2 + (p2 - t2) ** 2
            if hull == 0:  # they agree in this axis
                continue
            overlap *= max(min(p2, t2) - max(p1, t1), mpf(0))
            area_p, area_t, hull_area = area_p * (p2 - p1), area_t * (t2 - t1), hull_area * hull
        union = area_p + area_t - overlap
        (w, W, Cw), (h, H, Ch) = sides
        return cls(
            overlap / union if union else mpf(0), 1 - union / hull_area, fold, *away, w, h, W, H, Cw, Ch, corners
        )


def scaled(low: mpf, high: mpf, ratio: float) -> Span:
    middle, half = (low + high) / 2, (high - low) / 2
    return middle - ratio * half, middle + ratio * half


def over(a: mpf, b: mpf) -> mpf:
    """a / b, and 0 where there is nothing to be compared."""
    return a / b if b else mpf(0)


def distance(g: Geometry) -> mpf:
    return over(g.dx**2 + g.dy**2, g.Cw**2 + g.Ch**2)


def aspect(g: Geometry) -> mpf:
    if not (g.w or g.h) or not (g.W or g.H):  # a point has no aspect
        return mpf(0)
    return 4 / mp.pi**2 * (mp.atan2(g.W, g.H) - mp.atan2(g.w, g.h)) ** 2


def efficient(g: Geometry) -> list[mpf]:
    return [distance(g), over((g.w - g.W) ** 2, g.Cw**2) + over((g.h - g.H) ** 2, g.Ch**2)]


def mismatch(a: mpf, b: mpf) -> mpf:
    return over(abs(a - b), max(a, b))


def scylla(g: Geometry, theta: float = 4.0) -> mpf:
    sigma = mp.sqrt(g.dx**2 + g.dy**2)
    angle = 1 - 2 * mp.sin(mp.asin(over(abs(g.dy), sigma)) - mp.pi / 4) ** 2  # as the paper writes it
    delta = sum(1 - mp.exp(-(2 - angle) * over(d, c) ** 2) for d, c in ((g.dx, g.Cw), (g.dy, g.Ch)))
    omega = sum((1 - mp.exp(-mismatch(a, b))) ** theta for a, b in ((g.w, g.W), (g.h, g.H)))
    return (delta + omega) / 2


def bounded(g: Geometry, beta: mpf) -> mpf:
    bounds = [mismatch(g.w, g.W), mismatch(g.h, g.H)]
    for d, side in ((abs(g.dx), g.W), (abs(g.dy), g.H)):
        bounds.append(1 - max(mpf(0), (side - 2 * d) / (side + 2 * d)) if side + 2 * d else mpf(0))
    return sum(b**2 / (2 * beta) if b < beta else b - beta / 2 for b in bounds)


Held = Mapping[str, mpf]
Formula = Callable[[Geometry, Held], mpf]


def alpha_of(g: Geometry, gate: float = 0.0) -> mpf:
    return over(aspect(g), 1 - g.iou + aspect(g)) if g.iou >= gate else mpf(0)


def complete(g: Geometry, held: Held) -> mpf:
    return 1 - g.iou + distance(g) + held["alpha"] * aspect(g)


def unit_aspect(g: Geometry, held: Held) -> mpf:
    """With the gradient of v times w² + h²."""
    v = held["v"] + held["squares"] * (aspect(g) - held["v"])
    return 1 - g.iou + distance(g) + held["alpha"] * v


def wise(g: Geometry, held: Held) -> mpf:
    return held["focus"] * mp.exp(over(g.dx**2 + g.dy**2, held["c2"])) * (1 - g.iou)


def focus(g: Geometry, mean: str = "1", alpha: str = "1.9", delta: str = "3") -> mpf:
    beta = (1 - g.iou) / mpf(mean)
    return beta / (mpf(delta) * mpf(alpha) ** (beta - mpf(delta)))


def constants(g: Geometry) -> Held:
    """What the losses hold constant, at the boxes as they are."""
    return {
        "alpha": alpha_of(g),
        "gated": alpha_of(g, 0.5),
        "v": aspect(g),
        "squares": g.w**2 + g.h**2,
        "c2": g.Cw**2 + g.Ch**2,
        "focus": focus(g),
        "iou": g.iou,
    }


CASES: dict[str, tuple[Callable[[], BoxLoss], Formula]] = {
    "iou": (IoU, lambda g, _: 1 - g.iou),
    "iou_square": (lambda: IoU("square"), lambda g, _: 1 - g.iou**2),
    "giou": (GIoU, lambda g, _: 1 - g.iou + g.empty),
    "diou": (DIoU, lambda g, _: 1 - g.iou + distance(g)),
    "ciou": (CIoU, complete),
    "ciou_gated": (lambda: CIoU(alpha_gate=0.5), lambda g, held: complete(g, {"alpha": held["gated"]})),
    "ciou_unit": (lambda: CIoU("unit"), unit_aspect),
    "eiou": (EIoU, lambda g, _: 1 - g.iou + sum(efficient(g))),
    "siou": (SIoU, lambda g, _: 1 - g.iou + scylla(g)),
    "siou_2": (lambda: SIoU(theta=2.5), lambda g, _: 1 - g.iou + scylla(g, 2.5)),
    "mpdiou": (lambda: MPDIoU((480, 640)), lambda g, _: 1 - g.iou + g.corners / (480**2 + 640**2)),
    "wiou_v1": (lambda: WIoU("v1"), lambda g, held: wise(g, {**held, "focus": mpf(1)})),
    "wiou_v3": (WIoU, wise),
    "bounded": (BoundedIoU, lambda g, _: bounded(g, mpf("0.2"))),
    "bounded_1": (lambda: BoundedIoU(1.0), lambda g, _: bounded(g, mpf(1))),
    "alpha_giou": (lambda: AlphaIoU(GIoU()), lambda g, _: 1 - g.iou**3 + g.empty**3),
    "alpha_diou": (lambda: AlphaIoU(DIoU(), 2.5), lambda g, _: 1 - g.iou ** mpf(2.5) + distance(g) ** mpf(2.5)),
    "alpha_ciou": (
        lambda: AlphaIoU(CIoU()),
        lambda g, held: 1 - g.iou**3 + distance(g) ** 3 + (held["alpha"] * aspect(g)) ** 3,
    ),
    "alpha_eiou": (lambda: AlphaIoU(EIoU()), lambda g, _: 1 - g.iou**3 + sum(p**3 for p in efficient(g))),
    "focal_eiou": (
        lambda: FocalIoU(EIoU()),
        lambda g, held: mp.sqrt(held["iou"]) * (1 - g.iou + sum(efficient(g))),
    ),
    "focal_wiou": (lambda: FocalIoU(WIoU(), 2.0), lambda g, held: held["iou"] ** 2 * wise(g, held)),
}
#: Of inner losses the formula takes the inner IoU by another argument.
INNER: dict[str, tuple[Callable[[], BoxLoss], float, Formula]] = {
    "inner_iou": (lambda: InnerIoU(IoU(), 0.5), 0.5, lambda g, _: mpf(0)),
    "inner_giou": (lambda: InnerIoU(GIoU(), 0.75), 0.75, lambda g, _: g.empty),
    "inner_ciou": (lambda: InnerIoU(CIoU(), 1.25), 1.25, lambda g, held: complete(g, held) - 1 + g.iou),
}


def value_of(kind: str, pred: Sequence[mpf], target: Sequence[mpf], held: Held) -> mpf:
    g = Geometry.of(pred, target)
    if kind in INNER:
        _, ratio, penalties = INNER[kind]
        return 1 - Geometry.of(pred, target, ratio).iou + penalties(g, held) + g.fold
    return CASES[kind][1](g, held) + g.fold


def exact(kind: str, pred: list[float], target: list[float]) -> tuple[float, list[float]]:
    """Value and gradient by the eight coordinates: central differences, at a tie the mean of those on either side."""
    with mp.workdps(40):
        both = [mpf(x) for x in (*pred, *target)]
        held = constants(Geometry.of(both[:4], both[4:]))
        step, found = mpf(10) ** -15, []
        for i in range(8):
            up, down = list(both), list(both)
            up[i], down[i] = up[i] + step, down[i] - step
            slope = value_of(kind, up[:4], up[4:], held) - value_of(kind, down[:4], down[4:], held)
            found.append(float(slope / (2 * step)))
        return float(value_of(kind, both[:4], both[4:], held)), found


def make(kind: str) -> BoxLoss:
    loss = (CASES | INNER)[kind][0]()
    loss.reducer = NoReduction()
    return loss.double()


def as_tensors(pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    pred, target = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    return pred.requires_grad_(), target.requires_grad_()


@pytest.mark.parametrize("kind", [*CASES, *INNER])
@pytest.mark.parametrize("pairs", [PROPER, TIED, IMPROPER], ids=["proper", "tied", "improper"])
def test_value_and_gradient_are_those_of_the_formula(kind: str, pairs: list[Pair]) -> None:
    pred, target = as_tensors(pairs)
    values = make(kind)(pred, target)
    by_pred, by_target = torch.autograd.grad(values.sum(), (pred, target))
    for i, (p, t) in enumerate(pairs):
        value, slopes = exact(kind, p, t)
        assert values[i].item() == pytest.approx(value, rel=1e-12, abs=1e-13), (p, t)
        found = [*by_pred[i].tolist(), *by_target[i].tolist()]
        assert found == pytest.approx(slopes, rel=1e-9, abs=1e-10), (p, t)


@pytest.mark.parametrize("kind", [*CASES, *INNER])
def test_predictions_alone_have_the_same_gradient(kind: str) -> None:
    pred, target = as_tensors(PROPER + TIED + IMPROPER)
    expected, _ = torch.autograd.grad(make(kind)(pred, target).sum(), (pred, target))
    (found,) = torch.autograd.grad(make(kind)(pred, target.detach()).sum(), pred)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)
    by_target = torch.autograd.grad(make(kind)(pred.detach(), target).sum(), target)[0]
    both = torch.autograd.grad(make(kind)(pred, target).sum(), target)[0]
    torch.testing.assert_close(by_target, both, rtol=0, atol=0)
