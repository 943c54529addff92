"""Losses on rotated boxes against their definitions by matrices: in float64 by autograd, in many digits by mpmath."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction
from nearfar_iou import gaussian_loss
from nearfar_iou.gaussian_loss import GaussianLoss
from nearfar_iou.gwd import GWD
from nearfar_iou.kld import KLD
from nearfar_iou.probiou import ProbIoU

EACH = NoReduction()
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

#: Every form of every loss.
FORMS: list[tuple[Callable[..., GaussianLoss], dict[str, Any]]] = [
    *[(GWD, {"transform": f, "tau": tau}) for f in ("log1p", "sqrt", "log1p_sqrt") for tau in (1.0, 2.0, None)],
    (GWD, {"normalize": True}),
    *[(KLD, {"direction": d}) for d in ("pred_target", "target_pred", "jeffreys")],
    *[(KLD, {"transform": f, "tau": tau}) for f in ("sqrt", "log1p_sqrt") for tau in (1.0, None)],
    (ProbIoU, {}),
    (ProbIoU, {"form": "bhattacharyya"}),
]


def named(value: object) -> str:
    return str(getattr(value, "__name__", value))


every_form = pytest.mark.parametrize(("kind", "arguments"), FORMS, ids=named)


# ---- the definitions, by matrices


def covariance(boxes: Tensor, over: float) -> Tensor:
    """(n, 2, 2): R diag(w², h²) Rᵀ over a number."""
    cosine, sine = boxes[:, 4].cos(), boxes[:, 4].sin()
    turn = torch.stack((torch.stack((cosine, -sine), -1), torch.stack((sine, cosine), -1)), -2)
    return turn @ torch.diag_embed(boxes[:, 2:4].square() / over) @ turn.mT


def root(matrices: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrices)
    return vectors @ torch.diag_embed(values.sqrt()) @ vectors.mT


def trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)


def wasserstein(pred: Tensor, target: Tensor) -> Tensor:
    p, t = covariance(pred, 4), covariance(target, 4)
    between = root(root(p) @ t @ root(p))
    return (pred - target)[:, :2].square().sum(1) + trace(p + t - 2 * between)


def kullback_leibler(pred: Tensor, target: Tensor) -> Tensor:
    p, t = (
        torch.distributions.MultivariateNormal(boxes[:, :2], covariance_matrix=covariance(boxes, 4))
        for boxes in (pred, target)
    )
    return torch.distributions.kl_divergence(p, t)


def bhattacharyya(pred: Tensor, target: Tensor) -> Tensor:
    p, t = covariance(pred, 12), covariance(target, 12)
    delta = (pred - target)[:, :2, None]
    apart = delta.mT @ torch.linalg.inv(p + t) @ delta
    shape = torch.linalg.det(p + t) / (4 * (torch.linalg.det(p) * torch.linalg.det(t)).sqrt())
    return apart[:, 0, 0] / 4 + shape.log() / 2


def definition(kind: Any, arguments: dict[str, Any], pred: Tensor, target: Tensor) -> Tensor:
    if kind is ProbIoU:
        distance = bhattacharyya(pred, target)
        return distance if arguments else (1 - torch.exp(-distance)).sqrt()
    if kind is GWD:
        divergence = wasserstein(pred, target)
        if arguments.get("normalize"):
            divergence = divergence / (pred[:, 2:4] * target[:, 2:4]).prod(1).sqrt()
        transform, tau = arguments.get("transform", "sqrt"), arguments.get("tau", 2.0)
    else:
        directions = {
            "pred_target": lambda: kullback_leibler(pred, target),
            "target_pred": lambda: kullback_leibler(target, pred),
            "jeffreys": lambda: (kullback_leibler(pred, target) + kullback_leibler(target, pred)) / 2,
        }
        divergence = directions[arguments.get("direction", "pred_target")]()
        transform, tau = arguments.get("transform", "log1p"), arguments.get("tau", 1.0)
    if transform != "log1p":
        divergence = divergence.sqrt()
    f = divergence if transform == "sqrt" else divergence.log1p()
    return f if tau is None else 1 - 1 / (tau + f) - (1 - 1 / tau)


def boxes(n: int = 40, dtype: torch.dtype = torch.float64, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """Boxes of any angle, also beyond a turn, and of aspects from 1 : 20 to 20 : 1; some pairs overlap, some do not."""
    random = torch.Generator().manual_seed(8)

    def make() -> Tensor:
        centre = 3 * torch.randn(n, 2, generator=random, dtype=torch.float64)
        sides = torch.exp(1.5 * torch.rand(n, 2, generator=random, dtype=torch.float64))
        angle = 9 * torch.rand(n, 1, generator=random, dtype=torch.float64) - 4.5
        return torch.cat((size * centre, size * sides, angle), 1).to(dtype).requires_grad_()

    return make(), make()


def grads(loss: Any, *given: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(*given).sum(), given)


@every_form
def test_value_and_gradients_are_those_of_the_definition(kind: Any, arguments: Any) -> None:
    pred, target = boxes()
    expected = definition(kind, arguments, pred, target)
    values = kind(**arguments, reducer=EACH)(pred, target)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-13)
    for ours, theirs in zip(
        grads(kind(**arguments, reducer=EACH), pred, target),
        torch.autograd.grad(expected.sum(), (pred, target)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


@every_form
def test_gradcheck_for_predictions_and_targets(kind: Any, arguments: Any) -> None:
    assert torch.autograd.gradcheck(kind(**arguments, reducer=EACH), boxes(6))


def exact(distance: str, pred: list[float], target: list[float]) -> Any:
    """A distance in 50 digits, by matrices."""

    def matrix(box: list[Any], over: int) -> Any:
        turn = mpmath.matrix([[mpmath.cos(box[4]), -mpmath.sin(box[4])], [mpmath.sin(box[4]), mpmath.cos(box[4])]])
        return turn * mpmath.diag([box[2] ** 2 / over, box[3] ** 2 / over]) * turn.T

    p_box, t_box = ([mpmath.mpf(each) for each in box] for box in (pred, target))
    delta = mpmath.matrix([p_box[0] - t_box[0], p_box[1] - t_box[1]])
    if distance == "bhattacharyya":
        p, t = matrix(p_box, 12), matrix(t_box, 12)
        shape = mpmath.det(p + t) / (4 * mpmath.sqrt(mpmath.det(p) * mpmath.det(t)))
        return (delta.T * (p + t) ** -1 * delta)[0] / 4 + mpmath.log(shape) / 2
    p, t = matrix(p_box, 4), matrix(t_box, 4)
    if distance == "wasserstein":
        p_t = p * t  # similar to Σp^½ Σt Σp^½, so of the same eigenvalues
        between = mpmath.sqrt(p_t[0, 0] + p_t[1, 1] + 2 * mpmath.sqrt(mpmath.det(p_t)))
        return (delta.T * delta)[0] + p[0, 0] + p[1, 1] + t[0, 0] + t[1, 1] - 2 * between
    inner = (delta.T * t**-1 * delta)[0] + (t**-1 * p)[0, 0] + (t**-1 * p)[1, 1]
    return (inner + mpmath.log(mpmath.det(t) / mpmath.det(p))) / 2 - 1


ROOTS: list[tuple[str, GaussianLoss]] = [
    ("wasserstein", GWD("sqrt", None, reducer=EACH)),
    ("kullback_leibler", KLD(transform="sqrt", tau=None, reducer=EACH)),
    ("bhattacharyya", ProbIoU(reducer=EACH)),
]


@pytest.mark.parametrize(("distance", "loss"), ROOTS, ids=named)
@pytest.mark.parametrize("off", [1e-2, 1e-5, 1e-9])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_root_is_exact_next_to_a_perfect_prediction(
    distance: str, loss: GaussianLoss, off: float, swapped: bool
) -> None:
    """Where differences of nearly equal matrices keep nothing: at 1e-9 the definition in float64 has no digit left."""
    target = [3.0, -2.0, 8.0, 2.0, 0.7]
    pred = [3.0 + off, -2.0 + 2 * off, 8.0 - off, 2.0 + 0.5 * off, 0.7 + off]
    with mpmath.workdps(50):
        expected = exact(distance, pred, target)
        if distance == "bhattacharyya":
            expected = 1 - mpmath.exp(-expected)
        expected = float(mpmath.sqrt(expected))
    if swapped:
        pred[2:] = [pred[3], pred[2], pred[4] - math.pi / 2]
    found = loss(*(torch.tensor([box], dtype=torch.float64) for box in (pred, target))).item()
    # The inputs themselves are off by a rounding, and so are the sides after a turn by π / 2.
    assert found == pytest.approx(expected, rel=1e-13 + 5e-15 / off)


# ---- perfect predictions


@every_form
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0, 1e4])
def test_a_perfect_prediction_costs_nothing_and_is_left_alone(
    kind: Any, arguments: Any, dtype: torch.dtype, size: float
) -> None:
    pred = (boxes(30)[0].detach() * torch.tensor([size] * 4 + [1.0])).clamp(-6e4, 6e4).to(dtype).requires_grad_()
    target = pred.detach().clone().requires_grad_()
    values = kind(**arguments, reducer=EACH)(pred, target)
    assert values.dtype == torch.promote_types(dtype, torch.float32)
    assert not values.any()
    for gradient in torch.autograd.grad(values.sum(), (pred, target)):
        assert not gradient.any()


@every_form
def test_all_round_a_perfect_prediction_the_gradient_is_bounded_and_leads_back(kind: Any, arguments: Any) -> None:
    """The root is a cone: singular at its tip, where its slope is 0 by convention, and bounded next to it."""
    target = torch.tensor([[3.0, -2.0, 8.0, 2.0, 0.7]], dtype=torch.float64).expand(60, 5)
    steps = torch.randn(60, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    loss = kind(**arguments, reducer=EACH)
    for length in (1e-3, 1e-6, 1e-9, 1e-12):
        pred = (target + length * steps).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(pred, target).sum(), pred)
        assert gradient.abs().max() < 10
        assert ((gradient * steps).sum(1) > 0).all()


# ---- one box, written in several ways


@every_form
def test_the_same_box_written_another_way_costs_the_same(kind: Any, arguments: Any) -> None:
    pred, target = (each.detach() for each in boxes())
    loss = kind(**arguments, reducer=EACH)
    expected = loss(pred, target)
    half_turn = torch.tensor([0, 0, 0, 0, math.pi], dtype=torch.float64)
    other = pred[:, [0, 1, 3, 2, 4]] - half_turn / 2
    for first, second in ((pred + half_turn, target), (pred, target - half_turn), (other, target), (other, other)):
        value = loss(first, second)
        torch.testing.assert_close(value, 0 * expected if first is second else expected, rtol=1e-9, atol=1e-12)


@every_form
def test_the_angle_of_a_square_is_free(kind: Any, arguments: Any) -> None:
    """Its distribution is round: what no loss on it can see, a detector must learn otherwise or not need."""
    pred = torch.tensor([[1.0, 2.0, 3.0, 3.0, 0.3]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1.0, 2.0, 5.0, 2.0, 1.1]], dtype=torch.float64)
    (gradient,) = grads(lambda p: kind(**arguments)(p, target), pred)
    assert gradient[0, 4] == 0
    assert gradient[0, 2:4].all()


@every_form
def test_a_thin_box_is_turned_towards_its_target(kind: Any, arguments: Any) -> None:
    target = torch.tensor([[0.0, 0.0, 20.0, 1.0, 0.0]], dtype=torch.float64)
    for angle in (-1.5, -0.4, -1e-3, 1e-3, 0.4, 1.5, math.pi - 0.4):
        pred = torch.tensor([[0.0, 0.0, 20.0, 1.0, angle]], dtype=torch.float64, requires_grad=True)
        (gradient,) = grads(lambda p: kind(**arguments)(p, target), pred)
        assert math.copysign(1, gradient[0, 4].item()) == math.copysign(1, math.sin(2 * angle)), angle


# ---- boxes that are none, boxes far apart


def improper(size: float, side: list[float]) -> tuple[Tensor, Tensor]:
    each = torch.tensor([[0.5, 0.2, w, h, 0.4] for w in side for h in side], dtype=torch.float64)
    scale = torch.tensor([size] * 4 + [1.0], dtype=torch.float64)
    pairs = torch.cartesian_prod(torch.arange(len(each)), torch.arange(len(each)))
    shift = torch.tensor([[0.0, 0, 0, 0, 0], [0.3, -0.1, 0, 0, 0.9]], dtype=torch.float64)
    pred = torch.cat([each[pairs[:, 0]] + by for by in shift])
    return pred * scale, each[pairs[:, 1]].repeat(2, 1) * scale


@every_form
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4, 1e12])
def test_boxes_without_area_and_inverted_ones_are_finite(
    kind: Any, arguments: Any, dtype: torch.dtype, size: float
) -> None:
    side = [0.0, -0.3, 1.0]
    if dtype != torch.float16:  # in which 1 over so small a side is infinite
        side += [1e-30, 1e-7]
    elif not 1 <= size <= 1e4 or arguments == {"form": "bhattacharyya"}:
        pytest.skip("the sides leave float16, or 1 over them, or over their square")
    pred, target = (each.to(dtype).requires_grad_() for each in improper(size, side))
    values = kind(**arguments, reducer=EACH)(pred, target)
    assert values.isfinite().all()
    assert (values >= 0).all()
    for gradient in torch.autograd.grad(values.sum(), (pred, target)):
        assert gradient.isfinite().all()


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_far_apart_are_finite(kind: Any, arguments: Any, dtype: torch.dtype) -> None:
    pred, target = boxes(20)
    for far in (1e4, 1e9, 1e15):
        for small in (1.0, 1e-6, 0.0):
            scale = torch.tensor([1.0, 1.0, small, small, 1.0])
            away = (pred.detach() * scale + torch.tensor([far, -far, 0, 0, 0])).to(dtype).requires_grad_()
            other = (target.detach() * scale).to(dtype).requires_grad_()
            values = kind(**arguments, reducer=EACH)(away, other)
            assert values.isfinite().all()
            for gradient in torch.autograd.grad(values.sum(), (away, other)):
                assert gradient.isfinite().all()


@every_form
def test_an_inverted_box_is_never_rewarded_and_turns_round(kind: Any, arguments: Any) -> None:
    """By its square alone a side of −8 is as good as one of 8."""
    target = torch.tensor([[3.0, -2.0, 8.0, 2.0, 0.7]], dtype=torch.float64)
    loss = kind(**arguments)
    for scale in ((-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (-1e-3, 1.0), (0.0, 1.0), (0.0, 0.0)):
        factors = torch.tensor([1.0, 1.0, *scale, 1.0], dtype=torch.float64)
        pred = (target * factors).requires_grad_()
        value = loss(pred, target)
        (gradient,) = torch.autograd.grad(value, pred)
        small = (target * torch.where(factors > 0, factors, 1e-3)).requires_grad_()
        assert value.item() > loss(small, target).item() > 0
        assert all(slope < 0 for slope, factor in zip(gradient[0, 2:4], scale, strict=True) if factor <= 0)


@every_form
def test_the_loss_grows_as_boxes_move_apart(kind: Any, arguments: Any) -> None:
    if kind is ProbIoU and not arguments:
        pytest.skip("it ends at 1, which the next test is about")
    target = torch.tensor([[0.0, 0.0, 8.0, 2.0, 0.7]], dtype=torch.float64)
    steps = [torch.tensor([[by, 0.3 * by, 0, 0, 0.2]], dtype=torch.float64) for by in (0, 1, 3, 9, 30, 100, 1000)]
    values = [kind(**arguments)(target + step, target).item() for step in steps]
    assert all(a < b for a, b in itertools.pairwise(values))


def test_the_hellinger_distance_fades_where_the_other_form_still_pulls() -> None:
    target = torch.tensor([[0.0, 0.0, 8.0, 2.0, 0.7]])
    pred = (target + torch.tensor([[60.0, 0, 0, 0, 0]])).requires_grad_()
    (faded,) = grads(lambda p: ProbIoU()(p, target), pred)
    (pulls,) = grads(lambda p: ProbIoU("bhattacharyya")(p, target), pred)
    assert not faded.any()
    assert pulls[0, 0] > 1


# ---- invariances


@every_form
def test_moving_turning_and_mirroring_both_changes_nothing(kind: Any, arguments: Any) -> None:
    pred, target = (each.detach() for each in boxes())
    loss = kind(**arguments, reducer=EACH)
    expected = loss(pred, target)

    def turned(given: Tensor, by: float) -> Tensor:
        x, y = given[:, 0], given[:, 1]
        cosine, sine = math.cos(by), math.sin(by)
        centre = torch.stack((x * cosine - y * sine, x * sine + y * cosine), 1)
        return torch.cat((centre, given[:, 2:4], given[:, 4:] + by), 1)

    mirror = torch.tensor([-1.0, 1, 1, 1, -1], dtype=torch.float64)
    shift = torch.tensor([5.0, -7, 0, 0, 0], dtype=torch.float64)
    moves: list[Callable[[Tensor], Tensor]] = [lambda b: b + shift, lambda b: b * mirror, lambda b: turned(b, 0.9)]
    for move in moves:
        torch.testing.assert_close(loss(move(pred), move(target)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "depends"),
    [(GWD(), True), (GWD(normalize=True), False), (KLD(), False), (ProbIoU(), False)],
    ids=["gwd", "gwd_normalized", "kld", "probiou"],
)
def test_only_the_plain_wasserstein_distance_depends_on_the_unit(loss: GaussianLoss, depends: bool) -> None:
    pred, target = (each.detach() for each in boxes())
    unit = torch.tensor([100.0] * 4 + [1], dtype=torch.float64)
    assert math.isclose(loss(pred, target), loss(pred * unit, target * unit), rel_tol=1e-9) is not depends


# ---- how it is computed


@every_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_lower_precision_is_near_float64(kind: Any, arguments: Any, dtype: torch.dtype, size: float) -> None:
    """In float16 too, which holds no area of boxes of more than 256 by 256."""
    pred, target = boxes(dtype=dtype, size=size)
    values = kind(**arguments, reducer=EACH)(pred, target)
    assert values.dtype == torch.float32
    expected = kind(**arguments, reducer=EACH)(pred.detach().double(), target.detach().double())
    torch.testing.assert_close(values.double(), expected, rtol=2e-5, atol=1e-6)


def test_neither_pieces_nor_strides_make_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    pred, target = boxes()
    value = KLD()(pred, target)
    expected = torch.autograd.grad(value, (pred, target))
    monkeypatch.setattr(gaussian_loss, "PIECE", 7)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    turned = [each.detach().t().contiguous().t().requires_grad_() for each in (pred, target)]
    found = KLD()(*turned)
    torch.testing.assert_close(found, value, rtol=1e-14, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, turned), expected, rtol=1e-12, atol=1e-15)


def test_each_gets_the_gradient_of_its_own_loss_twice_through_a_kept_graph() -> None:
    pred, target = boxes(4)
    loss = ProbIoU(reducer=EACH)
    values, weights = loss(pred, target), torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    expected = [weights[:, None] * each for each in grads(loss, pred, target)]
    for keep in (True, True, False):
        found = torch.autograd.grad(values, (pred, target), weights, retain_graph=keep)
        torch.testing.assert_close(found, tuple(expected))


def test_a_second_derivative_is_refused_rather_than_zero() -> None:
    pred, target = boxes(3)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(KLD()(pred, target) + pred.square().sum(), pred, create_graph=True)


@every_form
def test_an_empty_batch_costs_nothing_and_fills_the_gradients(kind: Any, arguments: Any) -> None:
    pred, target = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, 5, requires_grad=True)
    value = kind(**arguments)(pred, target)
    value.backward()
    assert value.item() == 0
    assert pred.grad is not None
    assert target.grad is not None


def test_boxes_may_be_weighted_and_their_mean_normalised() -> None:
    pred, target = boxes(4)
    values, weights = KLD(reducer=EACH)(pred, target), torch.tensor([1.0, 2.0, 0.0, 0.5])
    torch.testing.assert_close(KLD()(pred, target, weights, 7), (values * weights).sum() / 7)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(InputError, match=r"\(n, 5\).*radians.*\(3, 4\)"):
        KLD()(torch.zeros(3, 4), torch.zeros(3, 4))
    with pytest.raises(InputError, match="differ in number"):
        KLD()(torch.zeros(3, 5), torch.zeros(1, 5))
    with pytest.raises(InputError, match="real numbers"):
        KLD()(torch.zeros(3, 5, dtype=torch.complex64), torch.zeros(3, 5))
    with pytest.raises(ArgumentError, match="tau is 1 or greater"):
        KLD(tau=0.5)
    with pytest.raises(ArgumentError, match="tau"):
        GWD(tau=float("nan"))
    with pytest.raises(ArgumentError, match="'log1p', 'sqrt', 'log1p_sqrt'"):
        GWD("none")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="jeffreys"):
        KLD("both")  # type: ignore[arg-type]
