"""Built-in plugin ``pml``: all of pytorch-metric-learning, described without importing it.

Every concrete public class is a part, ``pml.`` before its name. The name is the class's in snake case, by
one rule: a run of capitals and digits is one word, save that its last capital opens the next word where a
small letter follows (``NTXentLoss`` → ``nt_xent_loss``, ``P2SGradLoss`` → ``p2s_grad_loss``); see
:func:`nearfar.pml.names.snake_case`. The class's own name is an alias.

The table is true of pytorch-metric-learning 2.9, and a test holds it to what is installed. Angles are in
degrees there; each part concerned says so among its deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nearfar.hookspecs import hookimpl
from nearfar.pml import distances, margin, miners, pair, proxy, ranking, reducers, self_supervised, triplet, wrapper
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec, ReducerSpec

_ABSTRACT = "abstract: a base class with a method left to its subclasses"
_MIXIN = "a mixin: it adds a regulariser to the losses that inherit from it"

#: Public names of pytorch-metric-learning's losses, miners, reducers and distances that are not parts, and why.
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "BaseMetricLossFunction": _ABSTRACT,
        "BaseLossWrapper": _ABSTRACT,
        "GenericPairLoss": _ABSTRACT,
        "EmbeddingRegularizerMixin": _MIXIN,
        "WeightRegularizerMixin": _MIXIN,
        "BaseMiner": _ABSTRACT,
        "BaseReducer": _ABSTRACT,
        "BaseDistance": _ABSTRACT,
    }
)


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [
        *margin.LOSSES,
        *proxy.LOSSES,
        *pair.LOSSES,
        *triplet.LOSSES,
        *ranking.LOSSES,
        *self_supervised.LOSSES,
        *wrapper.LOSSES,
    ]


@hookimpl
def nearfar_miners() -> list[MinerSpec]:
    return list(miners.MINERS)


@hookimpl
def nearfar_reducers() -> list[ReducerSpec]:
    return list(reducers.REDUCERS)


@hookimpl
def nearfar_distances() -> list[DistanceSpec]:
    return list(distances.DISTANCES)
