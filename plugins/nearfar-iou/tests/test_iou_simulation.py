"""The simulation of the DIoU paper: its boxes, its directions, its totals, and that it goes on where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision import ops

from nearfar.errors import CheckpointError, ConfigError
from nearfar_iou.ciou import CIoU
from nearfar_iou.giou import GIoU
from nearfar_iou.simulation.cases import AREAS, CASES, PER_POINT, RATES, cases, points
from nearfar_iou.simulation.descent import along_gradient, along_published, descend
from nearfar_iou.simulation.published import direction
from nearfar_iou.simulation.record import Record
from nearfar_iou.simulation.run import combinations, simulate

# ---- the boxes


def test_every_point_has_the_papers_boxes() -> None:
    pred, target = cases(points(3, 0))
    assert pred.shape == target.shape == (4, 3 * PER_POINT)
    assert CASES == 1_715_000
    torch.testing.assert_close(target[2] * target[3], torch.ones(3 * PER_POINT, dtype=torch.float64))
    assert (target[:2] == 10).all()
    assert sorted({round(area, 9) for area in (pred[2] * pred[3]).tolist()}) == sorted(AREAS)
    ratios = {round(ratio, 9) for ratio in (pred[2] / pred[3]).tolist()}
    assert ratios == {round(ratio, 9) for ratio in (target[2] / target[3]).tolist()}
    assert ratios == {round(ratio, 9) for ratio in (1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4)}
    # Every combination once.
    together = torch.cat([pred, target[2:]]).t()[:PER_POINT]
    assert len(together.round(decimals=9).unique(dim=0)) == PER_POINT
    assert len(RATES) == 200


def test_points_fill_the_disc_evenly_and_a_seed_turns_them() -> None:
    centres = points(500, 0) - 10
    radius = centres.norm(dim=0)
    assert radius.max() < 3
    # Of an even disc the squared radius is even too.
    torch.testing.assert_close(radius.square().sort().values, 9 * (torch.arange(500) + 0.5).double() / 500)
    assert centres.mean(1).abs().max() < 0.02
    assert torch.equal(points(500, 0), points(500, 0))
    assert not torch.equal(points(500, 0), points(500, 1))


# ---- the directions

APART = ([9.0, 8.5, 0.6, 1.1], [11.0, 10.0, 1.0, 1.0])
BESIDE = ([9.0, 10.0, 0.6, 1.1], [11.0, 10.25, 1.0, 1.0])  # apart in x alone
OVERLAPPING = ([10.2, 9.9, 1.3, 0.9], [10.0, 10.0, 0.8, 1.4])
AROUND = ([10.1, 10.05, 3.0, 2.0], [10.0, 10.0, 1.0, 1.0])
PAIRS = {"apart": APART, "beside": BESIDE, "overlapping": OVERLAPPING, "around": AROUND}
BOX = list[float]


def ends(box: BOX) -> list[tuple[float, float]]:
    (x, y, w, h) = box
    return [(x - w / 2, x + w / 2), (y - h / 2, y + h / 2)]


def signed_union_over_hull(pred: BOX, target: BOX) -> float:
    """|U| / |C| with the product of signed overlaps for the intersection."""
    overlap = hull = 1.0
    for (l, r), (L, R) in zip(ends(pred), ends(target), strict=True):  # noqa: E741
        overlap *= min(r, R) - max(l, L)
        hull *= max(r, R) - min(l, L)
    return (pred[2] * pred[3] + target[2] * target[3] - overlap) / hull


def iou_of(pred: BOX, target: BOX) -> float:
    overlap = 1.0
    for (l, r), (L, R) in zip(ends(pred), ends(target), strict=True):  # noqa: E741
        overlap *= max(0.0, min(r, R) - max(l, L))
    return overlap / (pred[2] * pred[3] + target[2] * target[3] - overlap)


def slopes(function: Callable[[BOX, BOX], float], pred: BOX, target: BOX) -> Tensor:
    """Central differences by the four coordinates, those by sides doubled: what goes along a side in the paper."""
    found = []
    for i in range(4):
        up, down = list(pred), list(pred)
        up[i] += 1e-6
        down[i] -= 1e-6
        found.append((function(up, target) - function(down, target)) / 2e-6 * (1 if i < 2 else 2))
    return torch.tensor(found, dtype=torch.float64)


def published(loss: str, pair: tuple[BOX, BOX]) -> tuple[float, Tensor]:
    pred, target = (torch.tensor(box, dtype=torch.float64)[:, None] for box in pair)
    iou, step = direction(loss, pred, target)
    return iou.item(), step[:, 0]


@pytest.mark.parametrize("name", PAIRS)
def test_published_iou_is_the_slope_of_the_iou_with_sides_doubled(name: str) -> None:
    iou, step = published("iou", PAIRS[name])
    assert iou == pytest.approx(iou_of(*PAIRS[name]), rel=1e-12)
    torch.testing.assert_close(step, slopes(iou_of, *PAIRS[name]), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", PAIRS)
def test_published_giou_takes_signed_overlaps_for_an_intersection(name: str) -> None:
    _, step = published("giou", PAIRS[name])
    expected = slopes(iou_of, *PAIRS[name]) + slopes(signed_union_over_hull, *PAIRS[name])
    torch.testing.assert_close(step, expected, rtol=1e-7, atol=1e-8)


def test_nothing_draws_published_giou_over_a_gap_in_one_axis_where_the_gradient_does() -> None:
    pair = ([8.0, 10.0, 1.0, 1.0], [10.0, 10.0, 1.0, 1.0])
    _, step = published("giou", pair)
    assert step[:2].tolist() == [0, 0]
    _, true = along_gradient(GIoU())(*(torch.tensor([box], dtype=torch.float64).t() for box in pair))
    assert true[0].item() == pytest.approx(2 / 9)  # of 2 − |U| / |C| = 2 − 2 / (1 + d), by d = 2


def test_published_diou_by_hand() -> None:
    # A box of 2 × 2 about the origin and one about (4, 3): the hull is 6 × 5, its diagonal² 61, the distance² 25.
    _, step = published("diou", ([0, 0, 2, 2], [4, 3, 2, 2]))
    centre = [(2 * d * 61 + 2 * (6 + 5) * 25) / 61**2 for d in (4, 3)]  # low ends bound the hull: −1, sign reversed
    side = 2 * (6 * 0.5 + 5 * 0.5) * 25 / 61**2
    torch.testing.assert_close(step, torch.tensor([*centre, side, side], dtype=torch.float64), rtol=1e-12, atol=0)
    # One of 6 × 6 about (1, 0) round one of 2 × 2: the hull is it itself, and each own side counts −1, the other 1.
    _, step = published("diou", ([1, 0, 6, 6], [0, 0, 2, 2]))
    overlap = torch.tensor([0, 0, -2 * 4 * 6 / 36**2, -2 * 4 * 6 / 36**2], dtype=torch.float64)
    expected = overlap + torch.tensor([-2 / 72, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(step, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", PAIRS)
def test_published_ciou_leaves_out_a_factor_of_its_aspect(name: str) -> None:
    pred, target = PAIRS[name]
    iou, step = published("ciou", PAIRS[name])
    _, without = published("diou", PAIRS[name])

    def aspect(box: BOX, other: BOX) -> float:
        return 4 / math.pi**2 * (math.atan(other[2] / other[3]) - math.atan(box[2] / box[3])) ** 2

    v = aspect(pred, target)
    alpha = v / (1 - iou + v + 1e-7)
    true = -alpha * slopes(aspect, pred, target) / 2  # sides are not doubled here
    torch.testing.assert_close(step - without, true * (pred[2] ** 2 + pred[3] ** 2), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("make", "theirs"), [(GIoU, ops.generalized_box_iou_loss), (CIoU, ops.complete_box_iou_loss)])
def test_along_the_gradient_is_against_that_of_torchvisions_loss(make, theirs) -> None:  # type: ignore[no-untyped-def]
    pred, target = cases(points(2, 0))
    boxes = pred.t().clone().requires_grad_()
    corners = [ops.box_convert(each, "cxcywh", "xyxy") for each in (boxes, target.t())]
    (expected,) = torch.autograd.grad(theirs(*corners).sum(), boxes)
    iou, step = along_gradient(make())(pred, target)
    torch.testing.assert_close(step.t(), -expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(iou, ops.box_iou(*corners).diagonal().detach(), rtol=1e-12, atol=1e-12)


# ---- the totals


@pytest.fixture(scope="module")
def totals(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[float]]:
    """The sums of errors of the paper's number of boxes, in millions: of more points where they depend on them more."""
    found = {}
    for count, modes, losses in ((60, ["paper"], ["iou", "giou"]), (20, ["paper", "exact"], ["diou", "ciou"])):
        record = Record(tmp_path_factory.mktemp("made") / "bench", points=count, seed=0)
        results = simulate(record, combinations(modes, losses), seed=0)
        results += simulate(record, [("exact", "iou"), ("exact", "giou")], seed=0) if count == 20 else []
        found |= {(r.mode, r.loss): [error / 1e6 for error in r.curve] for r in results}
    return found


def test_along_the_published_directions_the_papers_figure_comes_out(totals) -> None:  # type: ignore[no-untyped-def]
    assert totals["paper", "iou"][200] == pytest.approx(5.91, rel=0.02)
    assert totals["paper", "giou"][200] == pytest.approx(1.51, rel=0.02)
    assert totals["paper", "diou"][200] < 0.01
    assert totals["paper", "ciou"][200] < 0.01
    # What the figure shows on the way there, read off it more roughly.
    assert totals["paper", "giou"][50] == pytest.approx(3.35, rel=0.02)
    assert totals["paper", "giou"][160] == pytest.approx(1.87, rel=0.02)
    assert totals["paper", "diou"][160] == pytest.approx(0.40, rel=0.02)


def test_along_the_true_gradients_giou_arrives_too_and_is_the_fastest_at_first(totals) -> None:  # type: ignore[no-untyped-def]
    final = {loss: totals["exact", loss][200] for loss in ("iou", "giou", "diou", "ciou")}
    assert final["ciou"] < final["giou"] < final["diou"] < 0.06 < 5.8 < final["iou"]
    assert totals["exact", "giou"][50] < totals["exact", "ciou"][50] < totals["exact", "diou"][50]


def test_every_curve_begins_with_the_errors_of_the_anchors(totals) -> None:  # type: ignore[no-untyped-def]
    assert {len(curve) for curve in totals.values()} == {201}
    for curve in totals.values():
        assert curve[0] == pytest.approx(6.65, rel=0.01)


# ---- the record


#: Points a block here.
BLOCK = 4


class Stop(Exception):
    """What interrupts."""


def test_what_was_interrupted_goes_on_and_comes_to_the_same_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearfar_iou.simulation.run.BLOCK", BLOCK)
    count = BLOCK + 3
    whole = simulate(Record(tmp_path / "whole", points=count, seed=1), [("paper", "giou"), ("exact", "iou")], seed=1)
    told: list[tuple[str, int]] = []

    def stop(mode: str, loss: str, done: int) -> None:
        told.append((mode, done))
        if (mode, done) == ("paper", BLOCK):
            raise Stop

    wanted = [("paper", "giou"), ("exact", "iou")]
    with pytest.raises(Stop):
        simulate(Record(tmp_path / "parts", points=count, seed=1), wanted, seed=1, tell=stop)
    begun: list[int] = []
    again = simulate(
        Record(tmp_path / "parts", points=count, seed=1), wanted, seed=1, tell=lambda _mode, _loss, d: begun.append(d)
    )
    assert told == [("paper", 0), ("paper", BLOCK)]
    assert begun == [BLOCK, count, 0, BLOCK, count]
    assert again == whole
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_block_is_what_its_points_are_by_themselves() -> None:
    centres = points(4, 0)
    together = descend(centres, along_published("diou"))
    apart = [descend(centres[:, i : i + 1], along_published("diou")) for i in range(4)]
    torch.testing.assert_close(together.surface, torch.cat([each.surface for each in apart]), rtol=1e-12, atol=1e-15)
    assert together.near == sum(each.near for each in apart)
    torch.testing.assert_close(together.surface.sum(), together.curve[-1])


def test_another_simulation_is_not_mixed_in(tmp_path: Path) -> None:
    Record(tmp_path / "bench", points=5, seed=0)
    with pytest.raises(ConfigError, match=r"holds another simulation \(points 5, not 6\); choose another folder"):
        Record(tmp_path / "bench", points=6, seed=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no simulation"):
        Record(tmp_path / "mine", points=6, seed=0)
    (tmp_path / "bench" / "settings.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        Record(tmp_path / "bench", points=5, seed=0)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 half of it"])
def test_a_damaged_file_says_that_it_is_to_be_removed(tmp_path: Path, content: bytes) -> None:
    record = Record(tmp_path / "bench", points=5, seed=0)
    (tmp_path / "bench" / "paper-iou.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"paper-iou.npz cannot be read .*; remove it"):
        simulate(record, [("paper", "iou")], seed=0)


def test_what_cannot_be_simulated_is_refused() -> None:
    assert combinations(("paper", "exact"), ("iou", "eiou")) == [("paper", "iou"), ("exact", "iou"), ("exact", "eiou")]
    with pytest.raises(ConfigError, match="the paper has no direction for eiou, only for iou, giou, diou, ciou"):
        combinations(("paper",), ("eiou",))
    for loss in ("focal", "l1", "mpdiou", "pml.arc_face_loss"):
        with pytest.raises(ConfigError, match="it is no loss on the overlap of boxes alone"):
            combinations(("exact",), (loss,))


def test_settings_are_what_was_asked_for(tmp_path: Path) -> None:
    Record(tmp_path / "bench", points=7, seed=3)
    assert json.loads((tmp_path / "bench" / "settings.json").read_text())["points"] == 7
