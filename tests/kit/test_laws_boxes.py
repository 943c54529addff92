"""Each law on boxes and logits catches the loss that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit that of the sound one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F

from kit.sound import SOUND_BOX_LOSS, SoundBoxLoss, broken_laws
from nearfar import Loss
from nearfar.errors import InputError
from nearfar.nn.terms import element_terms


class SoundLogitLoss(Loss):
    r"""Cross entropy of logits of independent classes, with soft labels.

    .. math:: -\sum_c y_c \ln \sigma(z_c) + (1 - y_c) \ln \sigma(-z_c)

    Parameters
    ----------
    reducer
        As in :class:`nearfar.Loss`.
    """

    def __init__(self, *, reducer: Any = None) -> None:
        super().__init__(reducer=reducer)

    def terms(self, *inputs: Any) -> Any:
        logits, targets = inputs
        if logits.shape != targets.shape:
            raise InputError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ")
        return element_terms(self.costs(logits, targets).sum(1))

    def costs(self, logits: Any, targets: Any) -> Any:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


SOUND_LOGIT_LOSS: Mapping[str, Any] = {
    "name": "sound_logits",
    "target": "somewhere:Else",
    "summary": "Cross entropy of logits of independent classes.",
    "inputs": ("logits", "targets"),
    "memory": 1,
}


class BoxLoss(SoundBoxLoss):
    r"""The mean over a box of a cost of the absolute differences of its coordinates.

    .. math:: \tfrac14 \sum_k c(|b_k - b^*_k|)

    Parameters
    ----------
    reducer
        As in :class:`nearfar.Loss`.
    """

    def __init__(self, *, reducer: Any = None) -> None:
        super().__init__(reducer=reducer)

    def terms(self, *inputs: Any) -> Any:
        super().terms(*inputs)  # refuses what does not fit together
        return element_terms(self.costs(*inputs).mean(1))

    def costs(self, prediction: Any, target: Any) -> Any:
        return (prediction - target).abs()


class FarFromTheOrigin(BoxLoss):
    # The same difference costs more away from the origin.

    def costs(self, prediction, target):
        return super().costs(prediction, target) * (1 + 0.01 * target.abs())


class Saturated(BoxLoss):
    # Far away costs no more than not near.

    def costs(self, prediction, target):
        return super().costs(prediction, target).clamp_max(10)


class Dip(BoxLoss):
    # Somewhat beside the target costs less than nothing.

    def costs(self, prediction, target):
        d = super().costs(prediction, target)
        return d.square() * (d - 1)


class Repelled(BoxLoss):
    # The farther, the better.

    def costs(self, prediction, target):
        return -super().costs(prediction, target)


class ByArea(BoxLoss):
    # A box turned inside out has a negative area, and is rewarded for it.

    def costs(self, prediction, target):
        width, height = (prediction[:, 2:] - prediction[:, :2]).T
        inside_out = (-width).clamp_min(0) + (-height).clamp_min(0)
        return super().costs(prediction, target) - 100 * inside_out[:, None]


class Formatted(BoxLoss):
    r"""Half the mean absolute difference, whatever the format.

    .. math:: \tfrac14 \sum_k |b_k - b^*_k|

    Parameters
    ----------
    box_format : str
        How boxes are written.
    reducer
        As in :class:`nearfar.Loss`.
    """

    factor = 1.0

    def __init__(self, *, box_format: Literal["xyxy", "xywh"] = "xyxy", reducer: Any = None) -> None:
        super().__init__(reducer=reducer)
        self.box_format = box_format

    def costs(self, prediction: Any, target: Any) -> Any:
        if self.box_format == "xywh":
            both = (torch.cat([b[:, :2], b[:, :2] + b[:, 2:]], 1) for b in (prediction, target))
            return self.factor * super().costs(*both)
        return super().costs(prediction, target)


class TwiceInXywh(Formatted):
    # In one of its formats it is twice what it is in the other.
    factor = 2.0


class ByTheFirst(BoxLoss):
    # The mean is taken in widths of the first target.

    def terms(self, *inputs):
        terms = super().terms(*inputs)
        target = inputs[1]
        terms.normalizer = len(target) * (1 + target[0, 2] - target[0, 0]) if len(target) else None
        return terms


class InMeanWidths(BoxLoss):
    # Each box is measured by the mean width of all.

    def costs(self, prediction, target):
        width = (target[:, 2] - target[:, 0]).mean() if len(target) else 1
        return super().costs(prediction, target) / (1 + width)


class Modest(SoundLogitLoss):
    # Certainty costs, also where it is right.

    def costs(self, logits, targets):
        return super().costs(logits, targets) + 0.5 * targets * logits.clamp(-2, 2).square()


BOX_CASES = [
    ("invariance", FarFromTheOrigin, {}, "translation"),
    ("invariance", BoxLoss, {"invariances": ("translation",)}, "flip"),
    ("separation", Saturated, {}, "13, 17 and 23"),
    ("separation", BoxLoss, {"separates": False}, "growing"),
    ("least", Dip, {"optimum": 0.0}, "costs -"),
    ("towards_target", Repelled, {"separates": False}, "off their targets"),
    ("inverted_boxes", ByArea, {"optimum": 0.0}, "less than perfect"),
    ("box_format", TwiceInXywh, {}, "with box_format"),
    ("row_order", ByTheFirst, {}, "another order"),
    ("row_independence", InMeanWidths, {}, "alone"),
]


@pytest.mark.parametrize(
    ("law", "broken", "changed", "said"), BOX_CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_broken_box_loss_is_caught_by_the_law_it_breaks(law, broken, changed, said):
    found = broken_laws("loss", broken, SOUND_BOX_LOSS, **changed)
    assert set(found) == {law}, found
    assert re.search(said, found[law])


def test_a_broken_logit_loss_is_caught_by_the_law_it_breaks():
    found = broken_laws("loss", Modest, SOUND_LOGIT_LOSS)
    assert set(found) == {"logit_direction"}, found
    assert re.search("of a positive .* costs .* more", found["logit_direction"])


def test_sound_losses_keep_every_law():
    assert broken_laws("loss", BoxLoss, SOUND_BOX_LOSS, optimum=0.0) == {}
    assert broken_laws("loss", Formatted, SOUND_BOX_LOSS) == {}
    assert broken_laws("loss", SoundLogitLoss, SOUND_LOGIT_LOSS, optimum=0.0) == {}
