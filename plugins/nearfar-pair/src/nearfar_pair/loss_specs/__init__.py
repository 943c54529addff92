"""What the plugin says of its losses, by what a cost is for; nothing heavy is imported."""

from __future__ import annotations

from nearfar_pair.loss_specs.entropies import ENTROPIES
from nearfar_pair.loss_specs.graded import GRADED_LOSSES
from nearfar_pair.loss_specs.pairs import PAIR_LOSSES
from nearfar_pair.loss_specs.ranks import RANKING_LOSSES
from nearfar_pair.loss_specs.triplets import TRIPLET_LOSSES
from nearfar_pair.loss_specs.views import VIEW_LOSSES
from nearfar_pair.loss_specs.weighted import WEIGHTED_LOSSES

__all__ = ["LOSSES"]

LOSSES = (
    *PAIR_LOSSES,
    *ENTROPIES,
    *WEIGHTED_LOSSES,
    *RANKING_LOSSES,
    *TRIPLET_LOSSES,
    *VIEW_LOSSES,
    *GRADED_LOSSES,
)
