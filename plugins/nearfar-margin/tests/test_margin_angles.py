"""Functions of an angle against the angle itself, and the sub-centers' dominant ones and outliers."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import ArgumentError, InputError
from nearfar_margin.angles import angle, cos_plus, cos_times, sine, widened
from nearfar_margin.arcface import ArcFace
from nearfar_margin.multiplicative import falling_cos_times
from nearfar_margin.subcenter_arcface import SubcenterArcFace

THETA = torch.linspace(0, math.pi, 2001, dtype=torch.float64)


@pytest.mark.parametrize("times", range(1, 9))
def test_a_multiplied_angle_falls_from_one_to_one_less_twice_the_number(times):
    """L-Softmax's φ: continuous, strictly falling, and (−1)^k cos mθ − 2k on each of its pieces."""
    found = falling_cos_times(THETA.cos(), times)
    k = (times * THETA / math.pi).floor().clamp_max(times - 1)
    torch.testing.assert_close(found, (-1) ** k * (times * THETA).cos() - 2 * k, rtol=0, atol=1e-10)
    assert (found.diff() < 0).all()
    assert found.diff().abs().max() < 1.01 * times * math.pi / 2000
    assert found[0] == 1
    assert found[-1] == 1 - 2 * times


@pytest.mark.parametrize("times", range(1, 9))
def test_a_multiplied_angle_has_a_finite_slope_everywhere(times):
    """m² at both ends, where the derivative of the arc cosine is infinite."""
    t = torch.tensor([1.0, -1.0, 0.3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(cos_times(t, times).sum(), t)
    expected = [times**2, (-1) ** (times + 1) * times**2, times * math.sin(times * math.acos(0.3)) / math.sqrt(0.91)]
    assert slope.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("function", [sine, angle, lambda t: cos_plus(t, 0.5), lambda t: widened(t, 0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_beyond_one_values_and_slopes_are_finite(function, dtype):
    t = torch.tensor([1.0, -1.0, 1 + 1e-6, -1 - 1e-6], dtype=dtype, requires_grad=True)
    value = function(t)
    value.sum().backward()
    assert value.isfinite().all()
    assert t.grad.isfinite().all()


def test_an_angle_keeps_its_digits_near_both_ends():
    """Of cosines as they are in float32: acos in double precision of the same numbers."""
    small = torch.tensor([3e-3, 1e-2, 0.1, 1.0])
    t = torch.cat([small.cos(), -small.cos()])
    torch.testing.assert_close(angle(t).double(), t.double().acos(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("easy", [False, True])
def test_a_margin_for_each_sample_is_that_of_each_alone(easy):
    t = THETA.cos()
    margins = torch.linspace(0, math.pi, len(t), dtype=torch.float64)
    expected = torch.stack([widened(v, m.item(), easy=easy) for v, m in zip(t, margins, strict=True)])
    torch.testing.assert_close(widened(t, margins, easy=easy), expected, rtol=1e-12, atol=1e-12)


# ---- the centers of a class


@pytest.fixture
def trained():
    """Two classes of two centers on the axes; of class 0 most samples are at the second, of class 1 at the first."""
    loss = SubcenterArcFace(2, 4, centers=2)
    with torch.no_grad():
        loss.weight.copy_(torch.eye(4).view(2, 2, 4) * torch.tensor([2.0, 5.0]).view(1, 2, 1))
    axes = torch.eye(4)
    x = torch.stack([axes[1], axes[1] + 0.2 * axes[3], axes[0], axes[2], 3 * axes[2], axes[3], axes[2] + 0.1 * axes[0]])
    return loss, x, torch.tensor([0, 0, 0, 1, 1, 1, 1])


def test_the_dominant_center_has_most_samples(trained):
    loss, x, y = trained
    torch.testing.assert_close(loss.dominant(x, y), torch.stack([loss.weight[0, 1], loss.weight[1, 0]]).detach())


def test_the_dominant_centers_start_a_loss_with_one(trained):
    loss, x, y = trained
    single = ArcFace(2, 4)
    single.load_state_dict({"weight": loss.dominant(x, y)})
    one = SubcenterArcFace(2, 4, centers=1)
    one.load_state_dict(single.state_dict())
    torch.testing.assert_close(single(x, y), one(x, y))


def test_outliers_are_far_from_the_dominant_center(trained):
    loss, x, y = trained
    assert loss.outliers(x, y).tolist() == [False, False, True, False, False, True, False]
    assert loss.outliers(x.half(), y.int()).tolist() == [False, False, True, False, False, True, False]
    # The second is 0.1974 from it, the last 0.0997.
    assert loss.outliers(x, y, angle_above=0.15).tolist() == [False, True, True, False, False, True, False]
    assert not loss.outliers(x, y, angle_above=math.pi).any()


def test_what_does_not_fit_is_named(trained):
    loss, x, y = trained
    with pytest.raises(InputError, match="labels run from 0 to 1"):
        loss.dominant(x, y + 1)
    with pytest.raises(InputError, match="embedding_size=4"):
        loss.outliers(x[:, :3], y)
    with pytest.raises(ArgumentError, match="angle_above"):
        loss.outliers(x, y, angle_above=75)
