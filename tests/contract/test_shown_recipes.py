"""Every recipe that a first-party plugin shows composes, and trains: one step along its gradient makes it smaller."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.contributions import RecipeSpec
from nearfar.discovery import Selector, discover
from nearfar.recipe import Recipe
from nearfar.registry import Registry
from nearfar.testing import batch
from nearfar.testing.scene import boxes, class_logits, dense_logits

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
