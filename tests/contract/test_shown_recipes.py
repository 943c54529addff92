"""Every recipe that a first-party plugin shows composes, and trains: one step along its gradient makes it smaller."""

from __future__ import annotations

import warnings

import pytest
import torch
from pytorch_metric_learning import losses, miners
from torch import Tensor

import nearfar
from nearfar.cli.shown_recipes import plain_settings
from nearfar.contributions import RecipeSpec
from nearfar.discovery import Selector, discover
from nearfar.recipe import Recipe
from nearfar.registry import Registry
from nearfar.testing import batch
from nearfar.testing.scene import boxes, class_logits, dense_logits
from nearfar.train import Config

REGISTRY = Registry(discover(selector=Selector(allow=frozenset({"iou", "margin", "pair", "proxy"}))))
SHOWN = {name: spec for name, (spec, _) in REGISTRY.recipes().items()}
CONTEXT = {"num_classes": 4, "embedding_size": 8, "image_size": 16}


def inputs(names: tuple[str, ...], spec: RecipeSpec) -> dict[str, Tensor]:
    """What a criterion is called with; each predicted tensor wants a gradient."""
    logits = class_logits(n=8) if "cross_entropy" in spec.recipe else dense_logits(n=8)
    distances = (torch.randn(8, 4, 6, dtype=torch.float64, generator=torch.manual_seed(0)), torch.full((8, 4), 2.5))
    known = {
        ("embeddings", "labels"): batch(classes=4, per_class=3, dim=8),
        ("ref_emb", "ref_labels"): batch(classes=4, per_class=3, dim=8, seed=1),
        ("logits", "targets"): logits,
        ("pred_boxes", "target_boxes"): boxes(n=8),
        ("distance_logits", "target_distances"): distances,
    }
    made: dict[str, Tensor] = {}
    for pair, tensors in known.items():
        if set(pair) <= set(names):
            made |= {pair[0]: tensors[0].clone().requires_grad_(), pair[1]: tensors[1]}
    assert set(made) == set(names)
    return made


def test_recipes_of_every_family_with_a_combination_are_shown():
    assert {"dense_detector", "facenet", "center_loss", "reid_baseline", "identification_verification"} <= set(SHOWN)
    assert SHOWN["dense_detector"].recipe == "focal + 2.0 * ciou"


@pytest.mark.parametrize("name", SHOWN)
def test_a_shown_recipe_composes_without_a_warning_and_is_written_as_nearfar_writes_it(name):
    spec = SHOWN[name]
    assert Recipe.of(spec.recipe).check(REGISTRY, **CONTEXT) == ()
    assert str(Recipe.of(spec.recipe)).replace("'", '"') == spec.recipe.replace("'", '"')


@pytest.mark.parametrize("name", SHOWN)
def test_a_shown_recipe_can_be_trained_with(name):
    spec = SHOWN[name]
    torch.manual_seed(0)
    with warnings.catch_warnings(action="error"):
        criterion = nearfar.compose(spec.recipe, registry=REGISTRY, **CONTEXT).double()
    given = inputs(criterion.inputs, spec)
    if "miner=atss" in spec.recipe:  # a matcher is given the class of each object, not targets for each prediction
        given["targets"] = torch.arange(len(given["target_boxes"])) % given["logits"].shape[1]
    predicted = [tensor for tensor in given.values() if tensor.requires_grad]
    value = criterion(**given)
    gradients = torch.autograd.grad(value, predicted)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    criterion.eval()
    before = criterion(**given).item()
    with torch.no_grad():
        for tensor, gradient in zip(predicted, gradients, strict=True):
            tensor -= 1e-4 * gradient
    assert criterion(**given).item() < before


@pytest.mark.parametrize("name", [name for name, spec in SHOWN.items() if spec.settings])
def test_the_settings_of_a_recipe_are_a_runs(name):
    config = Config.of((name, {"criterion": SHOWN[name].recipe, **plain_settings(SHOWN[name])})).to_dict()
    for section, keys in SHOWN[name].settings.items():
        for key, value in keys.items():
            assert config[section][key] == (list(value) if isinstance(value, tuple) else value)


def test_the_schedules_of_papers_are_shares_of_a_run():
    # ArcFace, section 3.1: 100 and 160 of 180 thousand steps; CosFace, section 4.1: 16, 24 and 28 of 30 thousand.
    for name, milestones, end in (("arcface_ms1m", (100, 160), 180), ("cosface_casia", (16, 24, 28), 30)):
        schedule = SHOWN[name].settings["schedule"]
        assert [share * end for share in schedule["milestones"]] == pytest.approx(milestones, rel=1e-3)
        assert (schedule["gamma"], schedule["warmup"], SHOWN[name].settings["optimizer"]["lr"]) == (0.1, 0.0, 0.1)


def test_proxies_learn_a_hundred_times_as_fast_as_the_network_they_were_tuned_with():
    for name, lr, epochs, gamma in (("proxy_anchor_cub", 1e-4, 5, 0.5), ("proxy_anchor_sop", 6e-4, 20, 0.25)):
        settings = SHOWN[name].settings
        assert settings["optimizer"]["criterion_lr"] == pytest.approx(100 * lr)
        assert [60 * share for share in settings["schedule"]["milestones"]] == pytest.approx(
            range(epochs, 60, epochs), rel=1e-3
        )
        assert (settings["optimizer"]["lr"], settings["schedule"]["gamma"]) == (lr, gamma)


# The optimal hyperparameters for CUB200 as the authors of the reality check print them, in the words of their library.
ROUNDED = {"norm_softmax", "arcface"}
TUNED = {
    "contrastive": losses.ContrastiveLoss(pos_margin=-0.2, neg_margin=0.3841),
    "triplet": losses.TripletMarginLoss(margin=0.0961),
    "nt_xent": losses.NTXentLoss(temperature=0.0091),
    "proxy_nca": losses.ProxyNCALoss(4, 8, softmax_scale=13.98),
    "margin": losses.MarginLoss(margin=0.0878, nu=0, beta=0.7838, learn_beta=True),
    "norm_softmax": losses.NormalizedSoftmaxLoss(4, 8, temperature=0.1087),
    "cosface": losses.CosFaceLoss(4, 8, margin=0.6182, scale=100),
    "arcface": losses.ArcFaceLoss(4, 8, margin=23.22, scale=100),
    "fast_ap": losses.FastAPLoss(num_bins=17),
    "snr_contrastive": losses.SignalToNoiseRatioContrastiveLoss(pos_margin=0.3264, neg_margin=0.8446),
    "multi_similarity": losses.MultiSimilarityLoss(alpha=0.01, beta=50.60, base=0.56),
    "multi_similarity_mined": losses.MultiSimilarityLoss(alpha=17.97, beta=75.66, base=0.77),
}


def test_every_tuned_recipe_is_compared():
    assert {name.removeprefix("reality_check_") for name in SHOWN if name.startswith("reality_check_")} == set(TUNED)


@pytest.mark.parametrize("name", TUNED)
def test_a_tuned_recipe_is_the_loss_that_was_tuned(name):
    spec, theirs = SHOWN[f"reality_check_{name}"], TUNED[name].double()
    ours = nearfar.compose(spec.recipe, registry=REGISTRY, **CONTEXT).double()
    # Classes that overlap, so that pairs of both sorts cost something.
    generator = torch.manual_seed(0)
    centres = torch.randn(4, 8, dtype=torch.float64, generator=generator).repeat_interleave(3, 0)
    embeddings = centres + 0.7 * torch.randn(12, 8, dtype=torch.float64, generator=generator)
    labels = torch.arange(4).repeat_interleave(3)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        if own.dim() == 2:
            other.data = own.data.T.clone() if name in ("norm_softmax", "cosface", "arcface") else own.data.clone()
    pairs = miners.MultiSimilarityMiner(epsilon=0.39)(embeddings, labels) if name.endswith("_mined") else None
    expected = theirs(embeddings, labels, pairs).item()
    assert expected > 0
    # The margin in radians and the scale are rounded to four and two digits.
    assert ours(embeddings, labels).item() == pytest.approx(expected, rel=1e-4 if name in ROUNDED else 1e-12)
