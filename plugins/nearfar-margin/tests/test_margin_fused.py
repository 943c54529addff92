"""SGD in the backward pass, against torch's SGD after it."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict

from nearfar.errors import ArgumentError, InputError
from nearfar_margin.adacos import AdaCos
from nearfar_margin.arcface import ArcFace
from nearfar_margin.cosface import CosFace
from nearfar_margin.curricularface import CurricularFace
from nearfar_margin.fused import FusedSGD
from nearfar_margin.l_softmax import LSoftmax
from nearfar_margin.mv_softmax import MVSoftmax
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.p2sgrad import P2SGrad
from nearfar_margin.row_optimizers import RowSGD
from nearfar_margin.sampling import sample
from nearfar_margin.softmax import Softmax
from nearfar_margin.sphereface2 import SphereFace2
from nearfar_margin.subcenter_arcface import SubcenterArcFace

#: More classes than a chunk has at least, so that the last one is narrower.
C, D = 600, 6
LOSSES = {
    "arcface": lambda **k: ArcFace(C, D, scale=8.0, **k),
    "norm_softmax": lambda **k: NormSoftmax(C, D, learn_scale=True, scale=6.0, **k),
    "mv_softmax": lambda **k: MVSoftmax(C, D, scale=8.0, **k),
    "curricularface": lambda **k: CurricularFace(C, D, scale=8.0, **k),
    "adacos": lambda **k: AdaCos(C, D, **k),
    "subcenter_arcface": lambda **k: SubcenterArcFace(C, D, scale=8.0, **k),
    "sphereface2": lambda **k: SphereFace2(C, D, **k),
    "p2sgrad": lambda **k: P2SGrad(C, D, **k),
    "l_softmax": lambda **k: LSoftmax(C, D, **k),
    "softmax": lambda **k: Softmax(C, D, label_smoothing=0.1, **k),
}
SETTINGS = {
    "plain": {"lr": 0.3},
    "momentum": {"lr": 0.3, "momentum": 0.9},
    "decay": {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.05},
}


@pytest.fixture(autouse=True)
def narrow_chunks(monkeypatch):
    """Some chunks to a pass, and samples' classes in each of them."""
    monkeypatch.setattr("nearfar_margin.chunks.CHUNK", 1024)


def made(name, **kwargs):
    torch.manual_seed(1)
    loss = LOSSES[name](engine="chunked", **kwargs).double()
    with torch.no_grad():
        loss.weight.normal_()
    return loss


def batch(step):
    """Labels at both ends, one of them several times."""
    g = torch.Generator().manual_seed(step)
    x = torch.randn(9, D, generator=g, dtype=torch.float64)
    return x, torch.cat([torch.tensor([0, C - 1, C - 1, 300]), torch.randint(C, (5,), generator=g)])


def rest(loss):
    return [p for p in loss.parameters() if p is not loss.weight]


def trained(loss, optimizers, steps=5, schedule=True):
    """The embeddings' gradients of some steps, with a learning rate that falls."""
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(o, 0.7) for o in optimizers if schedule]
    found = []
    for step in range(steps):
        x, y = batch(step)
        x.requires_grad_()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(x, y).backward()
        for each in (*optimizers, *schedulers):
            each.step()
        found.append(x.grad)
    return found


@pytest.mark.parametrize("memory_budget", [0.0, 256.0])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", LOSSES)
def test_it_makes_the_weights_that_sgd_makes(name, setting, memory_budget):
    theirs, ours = made(name, memory_budget=memory_budget), made(name, memory_budget=memory_budget)
    expected = trained(theirs, [torch.optim.SGD(theirs.parameters(), **SETTINGS[setting])])
    fused = FusedSGD(ours, **SETTINGS[setting])
    others = [torch.optim.SGD(rest(ours), **SETTINGS[setting])] if rest(ours) else []
    found = trained(ours, [fused, *others])
    assert ours.weight.grad is None
    assert not torch.equal(ours.weight, made(name).weight)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_engines_that_it_is_chosen_over():
    """auto would have taken the plain one for so few."""
    theirs, ours = made("arcface"), made("arcface")
    ours.engine = "auto"
    trained(theirs, [torch.optim.SGD(theirs.parameters(), lr=0.3)])
    trained(ours, [FusedSGD(ours, lr=0.3)])
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-12, atol=1e-12)


def test_in_evaluation_mode_and_without_gradients_nothing_is_stepped():
    loss = made("arcface")
    optimizer = FusedSGD(loss, lr=0.3)
    x, y = batch(0)
    before = loss.weight.detach().clone()
    with torch.no_grad():
        loss(x, y)
    loss.eval()
    loss(x, y).backward()
    assert torch.equal(loss.weight, before)
    assert loss.weight.grad is not None
    assert optimizer.steps == 0


def test_a_run_that_is_resumed_goes_on_as_if_nothing_had_been():
    through, first, second = made("arcface"), made("arcface"), made("arcface")
    trained(through, [FusedSGD(through, **SETTINGS["decay"])], steps=2, schedule=False)
    optimizer = FusedSGD(first, **SETTINGS["decay"])
    x, y = batch(0)
    first(x, y).backward()
    optimizer.step()
    saved = copy.deepcopy((first.state_dict(), optimizer.state_dict()))
    optimizer = FusedSGD(second, **SETTINGS["decay"])
    second.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    x, y = batch(1)
    second(x, y).backward()
    optimizer.step()
    assert torch.equal(second.weight, through.weight)


def test_to_ask_a_fresh_one_for_its_state_changes_nothing():
    loss = made("arcface")
    optimizer = FusedSGD(loss, **SETTINGS["decay"])
    _, state = get_state_dict(loss, optimizer)
    assert not state["state"]["weight"]["momentum_buffer"].any()
    assert torch.equal(loss.weight, made("arcface").weight)


def test_what_does_not_go_with_it_is_refused():
    loss = made("arcface")
    optimizer = FusedSGD(loss, lr=0.3)
    x, y = batch(0)
    early = loss(x, y)
    loss(x, y).backward()
    with pytest.raises(InputError, match="gradients cannot be accumulated"):
        loss(x, y).backward()
    optimizer.step()
    with pytest.raises(InputError, match="stepped the class weights since this value was computed"):
        early.backward()
    loss.weight.grad = torch.ones_like(loss.weight)
    with pytest.raises(ArgumentError, match="gradient from elsewhere"):
        optimizer.step()
    loss.weight.grad = None
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss(x, y)).backward()
    with pytest.raises(ArgumentError, match="a loss scaler has scaled the gradients"):
        scaler.step(optimizer)


def test_another_value_of_the_same_weights_does_not_go_back_through_new_ones():
    """A term beside the loss that keeps the weight: torch sees that it has changed, whichever goes back first."""
    loss = made("arcface")
    FusedSGD(loss, lr=0.3)
    x, y = batch(0)
    square = loss.weight.square().sum()
    loss(x, y).backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.backward()


def test_what_it_cannot_step_is_told_why():
    for make, message in (
        (lambda: nn.Linear(2, 2), "not computed by an engine"),
        (lambda: sample(CosFace(C, D), 0.1), "sampled rows only"),
        (lambda: CosFace(C, D, engine="plain"), "engine='plain'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            FusedSGD(make(), lr=0.1)
    loss = CosFace(C, D)
    for lr in (-1.0, math.nan):
        with pytest.raises(ArgumentError, match="lr must"):
            FusedSGD(loss, lr=lr)
    FusedSGD(loss, lr=0.1)
    with pytest.raises(ArgumentError, match="has a FusedSGD already"):
        FusedSGD(loss, lr=0.1)


def test_rows_and_all_at_once_step_alike():
    """RowSGD with a dense gradient, beside it: one formula, two optimisers."""
    one, other = made("arcface"), made("arcface")
    trained(one, [FusedSGD(one, **SETTINGS["decay"])])
    trained(other, [RowSGD(other.parameters(), **SETTINGS["decay"])])
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))], ids=["deep", "pickle"]
)
def test_a_copy_of_the_loss_is_stepped_by_its_own_optimiser(copied):
    torch.manual_seed(0)
    loss = ArcFace(7, 4)
    optimizer = FusedSGD(loss, 0.1, momentum=0.9)
    x, y = torch.randn(5, 4), torch.arange(5)

    def step(loss, optimizer):
        loss(x.clone().requires_grad_(), y).backward()
        optimizer.step()

    step(loss, optimizer)
    other = copied(loss)
    assert other.fused is not optimizer
    before = loss.weight.detach().clone()
    step(other, other.fused)
    torch.testing.assert_close(loss.weight.detach(), before, rtol=0, atol=0)
    step(loss, optimizer)
    torch.testing.assert_close(other.weight, loss.weight, rtol=0, atol=0)
