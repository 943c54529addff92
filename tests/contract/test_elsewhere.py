"""On another device than the CPU, where other ways are taken, what the plugins compute at real sizes is the same.

The law ``device`` holds every part to it in a dozen rows; here there are as many as go piece by piece.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nearfar
import nearfar_iou.suppression
from nearfar.registry import default_registry
from nearfar.spec import LossSpec
from nearfar.testing.elsewhere import ELSEWHERE, elsewhere, here, there
from nearfar.testing.exercise import tensors_in

CLASSES, DIM = 3000, 32
HEADS, PROXIES, BOXES = (
    {entry.spec.name: entry.spec for entry in default_registry().find("loss", plugin=plugin)}
    for plugin in ("margin", "proxy", "iou")
)
ROTATED = ("gwd", "kld", "probiou")
#: Of a batch in whole matrices, and a few rows at a time.
SIZES = (40, 400)
PAIRS = {entry.spec.name: entry.spec for entry in default_registry().find("loss", plugin="pair")}
#: Those that take embeddings and labels alone, and wrappers around one of them.
ON_PAIRS = [
    *sorted(PAIRS.keys() - {"cross_batch_memory", "gather", "graded_log_ratio", "matryoshka", "symmetric", "vicreg"}),
    "cross_batch_memory(loss=contrastive, size=300)",
    "gather(loss=sup_con)",
    "matryoshka(loss=triplet, dims=[8, 16])",
]
MINERS = [
    {"semihard": "semihard(margin=1.0)", "easy": "easy(margin=1.0)"}.get(name, name)
    for name in nearfar.list_miners(plugin="pair")
]


def recipe(spec: LossSpec, **arguments: object) -> str:
    """With the arguments of its example, without which some cannot be made, but for the sizes in it."""
    given = [re.sub(r"\(num_classes=\d+, embedding_size=\d+\)", "", spec.example)] if spec.example else []
    return f"{spec.name}({', '.join([*given, *(f'{name}={value!r}' for name, value in arguments.items())])})"


def outcome(make: Callable[[], Any], inputs: tuple[Tensor, ...], named: tuple[str, ...], *, away: bool) -> list[Tensor]:
    """What is returned, and the gradients of what can have any; all of it on the CPU. The last inputs have names."""
    with elsewhere() if away else contextlib.nullcontext():
        torch.manual_seed(0)
        part = make()
        learned = []
        if isinstance(part, nn.Module):
            part = part.double().to(ELSEWHERE if away else "cpu")
            learned = list(part.parameters())
        given = [there(x) if away else x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        by_name = dict(zip(named, given[len(inputs) - len(named) :], strict=True))
        found = tensors_in(part(*given[: len(inputs) - len(named)], **by_name))
        assert all(each.is_cpu is not away for each in found)
        if found[0].requires_grad:
            sum(each.sum() for each in found).backward()
            found += [leaf.grad for leaf in (*given, *learned) if leaf.grad is not None]
        return [here(each.detach()) for each in found]


def same_in_both_places(make: Callable[[], Any], *inputs: Tensor, **named: Tensor) -> None:
    found, expected = (outcome(make, (*inputs, *named.values()), tuple(named), away=away) for away in (True, False))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return drawn(size, 16, seed=seed).requires_grad_(), torch.arange(size) // 4


@pytest.mark.parametrize("size", [0, *SIZES])
@pytest.mark.parametrize("text", ON_PAIRS)
def test_a_loss_of_pairs_is_the_same_elsewhere(text: str, size: int) -> None:
    same_in_both_places(lambda: nearfar.compose(text, embedding_size=16, num_classes=100), *batch(size))


@pytest.mark.parametrize("name", [name for name in ON_PAIRS if name in PAIRS and PAIRS[name].reference])
def test_a_loss_of_a_reference_set_is_the_same_elsewhere(name: str) -> None:
    reference, labels = batch(200, seed=1)
    same_in_both_places(
        lambda: nearfar.compose(name, embedding_size=16, num_classes=100),
        *batch(SIZES[1]),
        ref_emb=reference,
        ref_labels=labels,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("miner", MINERS)
def test_a_miner_chooses_the_same_elsewhere(miner: str, size: int) -> None:
    same_in_both_places(lambda: nearfar.create_miner(miner), *batch(size))


@pytest.mark.parametrize("reducer", ["mean", "avg_non_zero", "top_k(k=50)", "threshold(low=0.1)", "per_anchor", "none"])
@pytest.mark.parametrize("loss", ["triplet", "contrastive(pos_margin=0.1)", "multi_similarity", "nt_xent"])
@pytest.mark.parametrize("miner", ["semihard(margin=1.0)", "batch_hard", "multi_similarity", "distance_weighted"])
def test_what_is_composed_is_the_same_elsewhere(loss: str, miner: str, reducer: str) -> None:
    same_in_both_places(lambda: nearfar.compose(loss, miner=miner, reducer=reducer), *batch(SIZES[1]))


@pytest.mark.parametrize("engine", ["plain", "chunked"])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_the_same_elsewhere(name: str, engine: str) -> None:
    labels = torch.arange(48) * 61 % CLASSES
    text = recipe(HEADS[name], engine=engine)
    same_in_both_places(
        lambda: nearfar.compose(text, num_classes=CLASSES, embedding_size=DIM),
        drawn(48, DIM).requires_grad_(),
        labels,
    )


@pytest.mark.parametrize("name", PROXIES)
def test_a_loss_with_proxies_is_the_same_elsewhere(name: str) -> None:
    labels = torch.arange(48) % 300
    text = recipe(PROXIES[name])
    same_in_both_places(
        lambda: nearfar.compose(text, num_classes=300, embedding_size=DIM), drawn(48, DIM).requires_grad_(), labels
    )


def boxes(count: int, *, rotated: bool = False, seed: int = 0) -> Tensor:
    corner, size = 50 * drawn(count, 2, seed=seed), 5 + drawn(count, 2, seed=seed + 1).abs()
    if rotated:
        return torch.cat([corner, size, drawn(count, 1, seed=seed + 2)], 1)
    return torch.cat([corner, corner + size], 1)


@pytest.mark.parametrize("name", [name for name, spec in BOXES.items() if spec.inputs[0] == "pred_boxes"])
def test_a_loss_of_boxes_is_the_same_elsewhere(name: str) -> None:
    target = boxes(2000, rotated=name in ROTATED)
    pred = target + 0.5 * drawn(*target.shape, seed=7)
    same_in_both_places(lambda: nearfar.compose(recipe(BOXES[name]), image_size=640), pred.requires_grad_(), target)


@pytest.mark.parametrize("name", nearfar_iou.suppression.__all__)
def test_suppression_is_the_same_elsewhere(name: str) -> None:
    function = getattr(nearfar_iou.suppression, name)
    count = 200 if name == "soft_nms" else 2000  # one box after another
    scores = drawn(count, seed=3).sigmoid()
    same_in_both_places(lambda: function, boxes(count), scores)
    same_in_both_places(lambda: function, boxes(count), scores, classes=torch.arange(count) % 7)
