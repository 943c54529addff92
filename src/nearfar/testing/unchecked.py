"""A part made without the checks that composition makes first: what is found is what the part itself says."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from nearfar.build import _Bench, _value
from nearfar.grammar import Live
from nearfar.planner import plan_part
from nearfar.testing.subject import Subject, seeded

__all__ = ["unchecked"]


def unchecked(subject: Subject, **arguments: Any) -> nn.Module:
    """The part with arguments that composition may refuse, such as a distance that the spec says it does not take.

    Raises
    ------
    ArgumentError
        The part itself refuses them, or cannot be planned at all.
    """
    live = {name: Live(value) for name, value in arguments.items()}
    planned, plan = plan_part(subject.part(**live), subject.kind, subject.registry, {})
    if planned is None:
        raise plan.errors[0].cause or AssertionError(plan.errors[0].message)
    with seeded(subject.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = _value(planned, _Bench())
    assert isinstance(made, nn.Module)
    return made.double()
