"""Weights of pairs: against the formulas of papers, and what they answer to."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import nearfar
import weighting_page
from nearfar.cli import cli
from nearfar.errors import InputError, NearfarError
from nearfar.explain import Anchor, curves, pair_weights, responses
from nearfar.registry import default_registry


def batch(classes: int = 3, per_class: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of length one, labels and similarities."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    centres = torch.randn(classes, 24, generator=generator, dtype=torch.float64)
    x = centres[labels] + torch.randn(len(labels), 24, generator=generator, dtype=torch.float64)
    x = torch.nn.functional.normalize(x, dim=1)
    return x, labels, x @ x.T


def compose(recipe: str) -> nearfar.Criterion:
    return nearfar.compose(recipe).double()


def test_weights_of_multi_similarity_are_the_papers() -> None:
    # Equation 15: e^{α(λ−S)}/(1 + Σ e^{α(λ−S)}) for positives and the like for negatives, both directions of a pair.
    x, labels, s = batch()
    alpha, beta, base = 2.0, 50.0, 0.5
    same = (labels[:, None] == labels) & ~torch.eye(9, dtype=torch.bool)
    other = labels[:, None] != labels
    near = torch.exp(-alpha * (s - base)) * same
    far = torch.exp(beta * (s - base)) * other
    expected = far / (1 + far.sum(1, keepdim=True)) - near / (1 + near.sum(1, keepdim=True))
    found = pair_weights(compose(f"multi_similarity(alpha={alpha}, beta={beta}, base={base})"), x, labels)
    torch.testing.assert_close(found, (expected + expected.T) / 9)


def test_a_miner_is_a_weight_of_zero_for_what_it_leaves_out() -> None:
    x, labels, s = batch(4, 3)
    found = pair_weights(compose("triplet(margin=2.0, miner=batch_hard)"), x, labels)
    hardest = torch.where(labels[:, None] == labels, math.inf, -s).argmin(1)
    left_out = torch.ones_like(s, dtype=torch.bool)
    for anchor, negative in enumerate(hardest.tolist()):
        left_out[anchor, negative] = left_out[negative, anchor] = False
    assert float(found[left_out & (labels[:, None] != labels)].abs().max()) < 1e-12
    assert bool((found[~left_out] >= 0).all())
    assert found.any()


def test_weights_are_symmetric_and_push_negatives_apart() -> None:
    x, labels, _ = batch()
    found = pair_weights(compose("sup_con"), x, labels)
    torch.testing.assert_close(found, found.T)
    assert bool((found[labels[:, None] != labels] > 0).all())


def test_embeddings_that_depend_on_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="linearly independent"):
        pair_weights(compose("triplet"), torch.randn(8, 4), torch.arange(8) // 2)


def test_a_loss_with_classes_has_no_weights_between_embeddings() -> None:
    x, labels, _ = batch()
    criterion = nearfar.compose("arcface", num_classes=3, embedding_size=24).double()
    with pytest.raises(InputError, match="classes or proxies"):
        pair_weights(criterion, x, labels)


def test_weights_of_one_anchor_are_those_of_a_softmax() -> None:
    anchor = Anchor("info_nce(temperature=0.2)", positives=1, negatives=4)
    s = torch.tensor([0.5, 0.3, -0.2, 0.1, 0.7], dtype=torch.float64)
    share = torch.softmax(s / 0.2, 0)
    torch.testing.assert_close(anchor.weights(s), (share - torch.tensor([1.0, 0, 0, 0, 0]).double()) / 0.2)


def test_class_vectors_stand_for_the_others_where_a_loss_has_them() -> None:
    anchor = Anchor("norm_softmax(scale=4.0)", negatives=4)
    s = torch.tensor([0.5, 0.3, -0.2, 0.1, 0.7], dtype=torch.float64)
    share = torch.softmax(4 * s, 0)
    torch.testing.assert_close(anchor.weights(s), 4 * (share - torch.tensor([1.0, 0, 0, 0, 0]).double()))


#: As the multi-similarity paper argues, section 3.2, where a hinge lets a weight answer to its own similarity as well.
KNOWN = {
    "contrastive": ({"self"}, set()),
    "triplet": ({"self", "positives"}, {"self", "negatives"}),
    "lifted_structure": ({"self", "positives", "negatives"}, {"self", "negatives"}),
    "multi_similarity": ({"self", "negatives"}, {"self", "positives"}),
    "multi_similarity(miner=multi_similarity)": ({"self", "positives", "negatives"},) * 2,
    "proxy_nca": ({"self", "negatives"}, set()),
    "arcface": ({"self", "positives", "negatives"}, {"self", "negatives"}),
}


@pytest.mark.parametrize("recipe", KNOWN)
def test_weights_answer_to_what_the_loss_compares(recipe: str) -> None:
    found = responses(recipe)
    assert (set(found.negative), set(found.positive)) == KNOWN[recipe]


def test_a_curve_is_the_weight_over_the_own_similarity() -> None:
    anchor = Anchor("contrastive(hinge='linear')")
    found = curves(anchor, points=21)
    assert set(found) == {"positive", "negative"}
    assert bool((found["positive"][1] <= 0).all())
    assert bool((found["negative"][1] >= 0).all())
    assert float(found["negative"][1][0]) == 0  # far enough apart


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("giou", "giou is a loss on pred_boxes and target_boxes: there are no pairs of embeddings"),
        ("focal", "focal is a loss on logits and targets: there are no pairs of embeddings"),
        ("triplet + contrastive", "is a sum of 2 losses, whose weights of pairs add up: ask for one of them"),
        ("ring", "takes no reference set and has no class vectors"),
    ],
)
def test_what_cannot_be_asked_is_told_with_the_reason(recipe: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        responses(recipe)


def test_a_name_that_nobody_has_is_told_as_everywhere() -> None:
    with pytest.raises(NearfarError, match="did you mean"):
        responses("tripplet")


def test_the_command_says_it_and_draws_it(tmp_path: Path) -> None:
    run = CliRunner().invoke(cli, ["explain", "triplet(miner=semihard)", "-o", str(tmp_path / "weights")])
    assert run.exit_code == 0, run.output
    assert "negative pair           yes         yes           –" in run.output
    assert (tmp_path / "weights.png").exists()
    assert (tmp_path / "weights.svg").exists()
    again = CliRunner().invoke(cli, ["explain", "triplet", "-o", str(tmp_path / "weights")])
    assert again.exit_code != 0
    as_json = CliRunner().invoke(cli, ["explain", "contrastive", "--json"])
    assert json.loads(as_json.output) == {"negative": ["self"], "positive": []}


def test_the_page_has_only_losses_that_there_are() -> None:
    page = weighting_page.PAGE.read_text(encoding="utf-8")
    listed = page.partition(weighting_page.BEGIN)[2].partition(weighting_page.END)[0]
    names = [line.split("`")[1] for line in listed.splitlines() if line.startswith("| `")]
    known = {entry.full_name for entry in default_registry().entries("loss")}
    assert {name.partition("(")[0] for name in names} <= known
    assert len(names) > 50


@pytest.mark.long
def test_the_page_is_what_is_measured() -> None:
    page = weighting_page.PAGE.read_text(encoding="utf-8")
    assert page == weighting_page.renewed(page, default_registry()), "run `python tests/weighting_page.py`"
