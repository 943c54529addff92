"""Augmentation of an image depends on its pixels and its key, to the bit, and on nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.data import Augment, Emoji, Normalise, Prepare
from nearfar.errors import ArgumentError, InputError
from nearfar.nn import counted

STILL = {
    "zoom": (1.0, 1.0),
    "aspect": 1.0,
    "rotation": 0.0,
    "shift": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
}


def keys(count, seed=0):
    return torch.tensor([counted.key(seed, position) for position in range(count)])


@pytest.fixture(scope="module")
def pixels():
    return Emoji("validation").images[:67]


@pytest.mark.parametrize("fill", [None, 1.0])
@pytest.mark.parametrize(
    ("side", "size"), [(32, 32), (32, 64), (32, 48), (32, 20), (160, 160), (160, (200, 100)), (32, (64, 48))]
)
def test_an_image_comes_out_the_same_in_every_batch_to_the_bit(pixels, side, size, fill):
    if side != 32:
        pixels = torch.nn.functional.interpolate(pixels[:11].float(), size=(side, side)).to(torch.uint8)
    augment, at = Augment(size, fill=fill, flip=0.5), keys(len(pixels))
    whole = augment(pixels, at)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment(pixels[order], at[order]), whole[order])
    for first, last in ((0, 1), (1, 4), (4, 11)):
        assert torch.equal(augment(pixels[first:last], at[first:last]), whole[first:last])


def test_it_comes_out_the_same_on_any_number_of_threads(pixels):
    augment, at, threads = Augment(64), keys(len(pixels)), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = augment(pixels, at)
        torch.set_num_threads(2)
        assert torch.equal(augment(pixels, at), one)
    finally:
        torch.set_num_threads(threads)


def test_it_neither_reads_nor_moves_the_global_generator(pixels):
    augment, at = Augment(32), keys(len(pixels))
    torch.manual_seed(1)
    first, state = augment(pixels, at), torch.get_rng_state()
    second = augment(pixels, at)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)


def test_other_keys_give_other_images_and_the_input_stays(pixels):
    augment, before = Augment(32), pixels.clone()
    assert not torch.equal(augment(pixels, keys(67)), augment(pixels, keys(67, seed=1)))
    same = augment(pixels[:1].expand(9, -1, -1, -1), keys(9))
    assert all(not torch.equal(same[0], other) for other in same[1:])
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("fill", [None, 0.25])
def test_with_all_ranges_shut_it_only_prepares(pixels, fill):
    still = Augment(32, fill=fill, **STILL)
    # Sampling at the centres of pixels interpolates with weights that are 1 and 0 to rounding.
    torch.testing.assert_close(still(pixels, keys(67)), Prepare(32)(pixels), rtol=0, atol=2e-5)


def test_a_certain_flip_is_the_mirror_image(pixels):
    mirrored = Augment(32, flip=1.0, **STILL)(pixels, keys(67))
    torch.testing.assert_close(mirrored, Prepare(32)(pixels).flip(-1), rtol=0, atol=2e-5)


def test_a_flip_is_off_by_default_and_comes_as_often_as_asked():
    ramp = (torch.arange(32) * 8).to(torch.uint8).expand(2000, 3, 32, 32)
    for probability, lower, upper in ((0.0, 0, 0), (0.3, 0.25, 0.35)):  # deviation 0.0102
        out = Augment(32, **{**STILL, "flip": probability})(ramp, keys(2000))
        share = float((out[:, 0, 16, 2] > out[:, 0, 16, 29]).float().mean())
        assert lower <= share <= upper
    assert Augment(32).flip == 0


def centre_of(images):
    """Return the centre of mass (x, y) of the bright pixels of images (N, 3, S, S), from −1 to 1."""
    weight = (images[:, 0] + 1).clamp(min=0)
    side = images.shape[-1]
    places = (torch.arange(side) * 2 + 1) / side - 1
    total = weight.sum(dim=(1, 2))
    return (weight * places).sum(dim=(1, 2)) / total, (weight * places[:, None]).sum(dim=(1, 2)) / total


@pytest.fixture(scope="module")
def spot():
    """A bright square right of the middle, half way to the border, on black."""
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, 30:34, 46:50] = 255
    return image.expand(500, -1, -1, -1)


def test_rotation_turns_by_at_most_its_angle_and_keeps_the_distance(spot):
    x, y = centre_of(Augment(64, fill=0.0, **{**STILL, "rotation": 30.0})(spot, keys(500)))
    angle = torch.rad2deg(torch.atan2(y, x))
    assert 27 < angle.max() <= 30.5
    assert -30.5 <= angle.min() < -27
    torch.testing.assert_close(torch.hypot(x, y), torch.full((500,), 0.5), rtol=0, atol=0.01)


def test_what_is_turned_keeps_its_distance_where_images_are_upright():
    image = torch.zeros(3, 64, 32, dtype=torch.uint8)
    image[:, 30:34, 24:28] = 255  # ten pixels right of the middle
    out = Augment((64, 32), fill=0.0, **{**STILL, "rotation": 60.0})(image.expand(500, -1, -1, -1), keys(500))
    assert out.shape == (500, 3, 64, 32)
    weight = (out[:, 0] + 1).clamp(min=0)
    across, down = torch.arange(32) - 15.5, torch.arange(64) - 31.5
    total = weight.sum(dim=(1, 2))
    x, y = (weight * across).sum(dim=(1, 2)) / total, (weight * down[:, None]).sum(dim=(1, 2)) / total
    torch.testing.assert_close(torch.hypot(x, y), torch.full((500,), 10.0), rtol=0, atol=0.2)
    assert torch.rad2deg(torch.atan2(y, x)).abs().max() > 55


def test_shift_moves_by_at_most_its_share_of_the_side(spot):
    x, y = centre_of(Augment(64, fill=0.0, **{**STILL, "shift": 0.1})(spot, keys(500)))
    for moved in (x - 0.5, y):
        assert 0.18 < moved.max() <= 0.205  # a tenth of the side is 0.2 of the range from −1 to 1
        assert -0.205 <= moved.min() < -0.18


def test_zoom_and_aspect_move_points_away_from_the_middle_by_their_factors(spot):
    x, _ = centre_of(Augment(64, fill=0.0, **{**STILL, "zoom": (0.5, 1.5)})(spot, keys(500)))
    assert 0.25 - 0.01 <= x.min() < 0.27
    assert 0.73 < x.max() <= 0.75 + 0.01
    x, _ = centre_of(Augment(64, fill=0.0, **{**STILL, "aspect": 1.44})(spot, keys(500)))
    assert 0.5 / 1.2 - 0.01 <= x.min() < 0.43
    assert 0.59 < x.max() <= 0.5 * 1.2 + 0.01


def test_colour_jitter_is_the_stated_formula():
    image = torch.tensor([200, 100, 40], dtype=torch.uint8).view(1, 3, 1, 1).expand(400, -1, 8, 8)
    colour = torch.tensor([200.0, 100.0, 40.0]) / 255
    luma = float(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])

    def jittered(**change):
        return Augment(8, mean=(0, 0, 0), std=(1, 1, 1), **{**STILL, **change})(image, keys(400))[:, :, 4, 4]

    brighter = jittered(brightness=0.2) / colour
    torch.testing.assert_close(brighter, brighter[:, :1].expand(-1, 3))
    assert 0.8 <= brighter.min() < 0.81 < 1.19 < brighter.max() <= 1.2 + 1e-6

    sharper = (jittered(contrast=0.2) - 0.5) / (colour - 0.5)
    torch.testing.assert_close(sharper, sharper[:, :1].expand(-1, 3), rtol=1e-4, atol=0)
    assert 0.8 - 1e-5 <= sharper.min() < 0.81 < 1.19 < sharper.max() <= 1.2 + 1e-5

    richer = (jittered(saturation=0.2) - luma) / (colour - luma)
    torch.testing.assert_close(richer, richer[:, :1].expand(-1, 3), rtol=1e-4, atol=0)
    assert 0.8 - 1e-5 <= richer.min() < 0.81 < 1.19 < richer.max() <= 1.2 + 1e-5


def test_the_fill_comes_in_from_outside_and_the_border_is_continued_without_one():
    grey = torch.full((50, 3, 32, 32), 51, dtype=torch.uint8)
    small = {**STILL, "zoom": (0.5, 0.5)}
    filled = Augment(32, mean=(0, 0, 0), std=(1, 1, 1), fill=1.0, **small)(grey, keys(50))
    assert filled[:, :, 0, 0].eq(1).all()
    torch.testing.assert_close(filled[:, :, 16, 16], torch.full((50, 3), 0.2))
    continued = Augment(32, mean=(0, 0, 0), std=(1, 1, 1), **small)(grey, keys(50))
    torch.testing.assert_close(continued, torch.full_like(continued, 0.2))


def test_prepare_scales_resizes_and_normalises(pixels):
    out = Prepare(48, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))(pixels)
    assert out.shape == (67, 3, 48, 48)
    white = Prepare(20, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    expected = torch.tensor([0.9 / 0.5, 0.8 / 0.25, 0.7 / 2.0]).view(1, 3, 1, 1).expand(1, 3, 20, 20)
    torch.testing.assert_close(white, expected)


def test_making_images_smaller_does_not_alias():
    stripes = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(1, 3, 64, 64)
    for out in (Prepare(16)(stripes), Augment(16, **STILL)(stripes, keys(1))):
        assert out[:, :, 2:-2, 2:-2].abs().max() < 0.05  # stripes of one pixel are mid-grey from afar


def test_the_constants_of_normalisation_are_not_weights():
    assert Normalise((0.1, 0.2, 0.3), (1, 1, 1)).state_dict() == {}
    assert list(Augment(32).parameters()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"zoom": (0.0, 1.0)}, "zoom=.* two positive numbers"),
        ({"zoom": (1.2, 0.8)}, "zoom=.* the smaller one first"),
        ({"aspect": 0.9}, "aspect=0.9: it must be at least 1"),
        ({"rotation": 180}, "rotation=180: it must be from 0 to under 180 degrees"),
        ({"shift": 1.5}, "shift=1.5: it must be from 0 to 1"),
        ({"flip": 2}, "flip=2: it must be a probability"),
        ({"brightness": -0.1}, "brightness=-0.1"),
        ({"contrast": 1.1}, "contrast=1.1"),
        ({"saturation": math.nan}, "saturation=nan"),
        ({"fill": 255}, "fill=255: it must be from 0 to 1, or None"),
        ({"size": 0}, "an image size is 0"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_by_name(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Augment(**{"size": 32, **arguments})


def test_a_batch_of_another_kind_is_refused(pixels):
    with pytest.raises(InputError, match=r"images are \(67, 3, 32, 32\) of torch.float32"):
        Prepare(32)(pixels.float())
    with pytest.raises(InputError, match=r"images are \(3, 32, 32\)"):
        Prepare(32)(pixels[0])
    with pytest.raises(InputError, match=r"keys are \(3,\) of torch.int64 for 67 images"):
        Augment(32)(pixels, keys(3))


def test_an_empty_batch_stays_empty(pixels):
    assert Augment(40)(pixels[:0], keys(0).to(torch.int64)).shape == (0, 3, 40, 40)
    assert Prepare(40)(pixels[:0]).shape == (0, 3, 40, 40)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_numbers_and_gives_the_same_images_to_rounding(pixels):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    at = keys(67)
    assert torch.equal(counted.uniform(at.cuda(), 9).cpu(), counted.uniform(at, 9))
    augment = Augment(64, fill=1.0)
    expected = augment(pixels, at)
    torch.testing.assert_close(augment.cuda()(pixels.cuda(), at.cuda()).cpu(), expected, rtol=0, atol=1e-3)
