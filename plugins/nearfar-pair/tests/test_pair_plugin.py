"""What the plugin declares agrees with the classes it names."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import nearfar
from nearfar.nn.distances import Cosine, Dot, Euclidean, SquaredEuclidean
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.miners import Miner
from nearfar.nn.reducers import AvgNonZero, Mean
from nearfar.spec import LossSpec, MinerSpec
from nearfar_pair import plugin

LOSSES = plugin.nearfar_losses()
MINERS = plugin.nearfar_miners()
DEFAULTS = {
    "core.euclidean": Euclidean,
    "core.squared_euclidean": SquaredEuclidean,
    "core.cosine": Cosine,
    "core.dot": Dot,
    "core.mean": Mean,
    "core.avg_non_zero": AvgNonZero,
}


def target(spec: LossSpec | MinerSpec) -> type[Any]:
    module, name = spec.target.split(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def by_name(spec: LossSpec | MinerSpec) -> str:
    return spec.name


def test_the_parts() -> None:
    assert {spec.name for spec in LOSSES} == {
        *("contrastive", "triplet", "sup_con", "nt_xent", "info_nce", "decoupled_contrastive", "siglip", "n_pair"),
        *("generalized_lifted", "lifted_structure", "ranked_list", "multi_similarity", "circle", "tuplet_margin"),
        *("margin_beta", "nca", "threshold_consistent_margin", "smooth_ap", "recall_at_k", "pnp", "fast_ap"),
        *("snr_contrastive", "intra_pair_variance", "histogram", "hinge_pair", "arcface_triplet", "angular"),
        *("quadruplet", "centroid_triplet", "dynamic_soft_margin", "vicreg", "instance", "graded_log_ratio"),
        *("cross_batch_memory", "symmetric", "matryoshka", "gather"),
    }
    assert [spec.name for spec in MINERS] == [
        "all",
        "semihard",
        "semihard_one",
        "hard",
        "easy",
        "batch_hard",
        "hard_negative_all_positive",
        "multi_similarity",
        "pair_margin",
        "batch_easy_hard",
        "angular",
        "hdc",
        "uniform_histogram",
        "distance_weighted",
    ]


@pytest.mark.parametrize("spec", [spec for spec in LOSSES if spec.family != "wrapper"], ids=by_name)
def test_a_loss_has_the_defaults_its_spec_names(spec: LossSpec) -> None:
    loss = target(spec)(**dict.fromkeys(spec.needs, 3))
    assert isinstance(loss, EmbeddingLoss)
    if spec.distances:
        assert type(loss.distance) is DEFAULTS[spec.default_distance]
    assert type(loss.reducer) is DEFAULTS[spec.default_reducer]


@pytest.mark.parametrize("spec", LOSSES, ids=by_name)
def test_presets_and_thresholds_are_arguments(spec: LossSpec) -> None:
    for preset in spec.presets.values():
        target(spec)(**preset.arguments)
    assert set(spec.thresholds) <= set(inspect.signature(target(spec)).parameters)


@pytest.mark.parametrize("spec", MINERS, ids=by_name)
def test_a_miner_needs_no_argument_and_leaves_its_distance_to_the_loss(spec: MinerSpec) -> None:
    miner = target(spec)()
    assert isinstance(miner, Miner)
    assert miner.distance is None
    assert spec.produces == spec.family + "s"


@pytest.mark.parametrize("spec", [*LOSSES, *MINERS], ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_what_a_part_was_made_with_is_written_out(spec: LossSpec | MinerSpec) -> None:
    """pytorch-metric-learning's parts say nothing of their arguments."""
    part = nearfar.create_loss if spec.kind == "loss" else nearfar.create_miner
    made = part(f"pair.{spec.name}({spec.example})", **dict.fromkeys(spec.needs, 3))
    own = set(inspect.signature(target(spec)).parameters) - {"distance", "reducer", "loss", "miner"}
    assert not [name for name in own if f"{name}=" not in repr(made)]
