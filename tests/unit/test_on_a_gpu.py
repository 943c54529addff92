"""Criteria on a GPU give what they give on the CPU."""

from __future__ import annotations

import pytest
import torch

import nearfar
from nearfar.registry import default_registry

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none"),
]

LOSSES = [e for e in default_registry().entries("loss") if e.namespace in ("margin", "pair", "proxy", "iou")]


def inputs_of(spec, device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    if spec.on_embeddings:
        first, second = torch.randn(32, 16, generator=generator), torch.arange(32) % 8
    elif spec.inputs[0] == "logits":
        first, second = torch.randn(32, generator=generator), (torch.arange(32) % 2).float()
    else:
        corner = torch.rand(32, 2, generator=generator)
        second = torch.cat([corner, corner + 0.5], 1)
        first = second + 0.1 * torch.rand(32, 4, generator=generator)
    return first.to(device, dtype).requires_grad_(), second.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", [entry.full_name for entry in LOSSES])
def test_a_loss_gives_the_same_value_and_gradient(loss, dtype):
    spec = default_registry().resolve("loss", loss).spec
    found = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        criterion = nearfar.compose(loss, num_classes=8, embedding_size=16).to(device)
        first, second = inputs_of(spec, device, dtype)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = criterion(first, second)
        value.backward()
        found[device] = (value.detach().cpu(), first.grad.float().cpu())
    # A gradient in bfloat16 has three digits.
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-3}
    for cpu, cuda in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(cuda, cpu, **tolerance)


@pytest.mark.parametrize("miner", ["all", "semihard", "hard", "batch_hard"])
@pytest.mark.parametrize("reducer", ["mean", "sum", "avg_non_zero"])
def test_a_fused_composition_gives_the_same_value_and_gradient(miner, reducer):
    spec = default_registry().resolve("loss", "triplet").spec
    found = {}
    for device in ("cpu", "cuda"):
        first, second = inputs_of(spec, device)
        value = nearfar.compose("triplet", miner=miner, reducer=reducer).to(device)(first, second)
        value.backward()
        found[device] = (value.detach().cpu(), first.grad.cpu())
    for cpu, cuda in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-4, atol=1e-4)
