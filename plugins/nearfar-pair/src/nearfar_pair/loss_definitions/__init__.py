"""What the losses compute, said slowly and plainly: the checks of ``nearfar.testing`` hold the losses to it.

Embeddings are (n, d) and labels (n,); ``ref_emb`` and ``ref_labels`` are None where the batch is compared with itself.
Each is written from its paper's formula with its default distance and reducer, in Python's floats.
"""

from __future__ import annotations

from nearfar_pair.loss_definitions.entropies import (
    decoupled_contrastive,
    info_nce,
    n_pair,
    nca,
    nt_xent,
    sup_con,
    tuplet_margin,
)
from nearfar_pair.loss_definitions.graded import graded_log_ratio
from nearfar_pair.loss_definitions.pairs import (
    contrastive,
    histogram,
    intra_pair_variance,
    margin_beta,
    siglip,
    snr_contrastive,
    threshold_consistent_margin,
)
from nearfar_pair.loss_definitions.ranks import fast_ap, pnp, ranked_list, recall_at_k, smooth_ap
from nearfar_pair.loss_definitions.triplets import arcface_triplet, centroid_triplet, hinge_pair, quadruplet, triplet
from nearfar_pair.loss_definitions.views import instance, vicreg
from nearfar_pair.loss_definitions.weighted import (
    angular,
    circle,
    dynamic_soft_margin,
    generalized_lifted,
    lifted_structure,
    multi_similarity,
)

__all__ = [
    "angular",
    "arcface_triplet",
    "centroid_triplet",
    "circle",
    "contrastive",
    "decoupled_contrastive",
    "dynamic_soft_margin",
    "fast_ap",
    "generalized_lifted",
    "graded_log_ratio",
    "hinge_pair",
    "histogram",
    "info_nce",
    "instance",
    "intra_pair_variance",
    "lifted_structure",
    "margin_beta",
    "multi_similarity",
    "n_pair",
    "nca",
    "nt_xent",
    "pnp",
    "quadruplet",
    "ranked_list",
    "recall_at_k",
    "siglip",
    "smooth_ap",
    "snr_contrastive",
    "sup_con",
    "threshold_consistent_margin",
    "triplet",
    "tuplet_margin",
    "vicreg",
]
