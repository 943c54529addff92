"""Entry module of the plugin ``margin``."""

from __future__ import annotations

from nearfar.hookspecs import hookimpl
from nearfar.spec import LossSpec
from nearfar_margin.specs import adaptive, additive, multiplicative, softmax


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [*softmax.SPECS, *multiplicative.SPECS, *additive.SPECS, *adaptive.SPECS]
