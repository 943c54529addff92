"""Losses on a share of the classes at a time, against the same losses that have no others."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import nearfar
from nearfar.errors import ArgumentError
from nearfar.nn.reducers import NoReduction
from nearfar_margin.adacos import AdaCos
from nearfar_margin.arcface import ArcFace
from nearfar_margin.cosface import CosFace
from nearfar_margin.curricularface import CurricularFace
from nearfar_margin.fused import FusedSGD
from nearfar_margin.kappaface import KappaFace
from nearfar_margin.l_softmax import LSoftmax
from nearfar_margin.magface import MagFace
from nearfar_margin.margin_softmax import MarginSoftmax
from nearfar_margin.mv_softmax import MVSoftmax
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.npcface import NPCFace
from nearfar_margin.p2sgrad import P2SGrad
from nearfar_margin.row_optimizers import RowAdamW, RowSGD
from nearfar_margin.sampling import sample
from nearfar_margin.softmax import Softmax
from nearfar_margin.sphereface2 import SphereFace2
from nearfar_margin.subcenter_arcface import SubcenterArcFace
from nearfar_margin.unified_ce import UnifiedCE

C, D = 40, 6
ENGINES = ("plain", "chunked")
#: A scale that is learned; a survey that does not depend on how many classes there are; rows that others depend on;
#: state of the batch; several vectors a class; sums of losses with a learned bias; lengths; a linear classifier.
LOSSES = {
    "arcface": lambda c, **k: ArcFace(c, D, **k),
    "cosface": lambda c, **k: CosFace(c, D, **k),
    "norm_softmax": lambda c, **k: NormSoftmax(c, D, learn_scale=True, scale=6.0, **k),
    "mv_softmax": lambda c, **k: MVSoftmax(c, D, **k),
    "curricularface": lambda c, **k: CurricularFace(c, D, **k),
    "magface": lambda c, **k: MagFace(c, D, **k),
    "subcenter_arcface": lambda c, **k: SubcenterArcFace(c, D, **k),
    "sphereface2": lambda c, **k: SphereFace2(c, D, **k),
    "unified_ce": lambda c, **k: UnifiedCE(c, D, **k),
    "p2sgrad": lambda c, **k: P2SGrad(c, D, **k),
    "l_softmax": lambda c, **k: LSoftmax(c, D, **k),
    "softmax": lambda c, **k: Softmax(c, D, label_smoothing=0.1, **k),
}


def batch(n=9, classes=C):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    return x.requires_grad_(), torch.randint(classes, (n,), generator=g)


def made(name, classes=C, **kwargs):
    torch.manual_seed(2)
    loss = LOSSES[name](classes, **kwargs).double()
    with torch.no_grad():
        loss.weight.normal_()
    return loss


def drawn(loss):
    """The rows of which the weight has a gradient."""
    return loss.weight.grad.coalesce().indices()[0]


def small(loss, name, rows, **kwargs):
    """The same loss with no classes but these."""
    alone = made(name, len(rows), **kwargs)
    state = copy.deepcopy(loss.state_dict())
    state.pop("sampler.steps", None)
    own = {key: value[rows] if value.shape[:1] == (C,) else value for key, value in state.items()}
    alone.load_state_dict(own)
    return alone


def close(what, found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_sampled_loss_is_that_of_a_head_with_no_other_classes(name, engine):
    kwargs = {"engine": engine, "reducer": NoReduction()}
    loss, (x, y) = sample(made(name, **kwargs), 0.3), batch()
    weights = torch.linspace(0.5, 2, len(y), dtype=torch.float64)
    before = copy.deepcopy(loss)
    values = loss(x, y)
    (values * weights).sum().backward()
    rows = drawn(loss)
    assert set(y.tolist()) <= set(rows.tolist())
    assert len(rows) < C
    alone, z = small(before, name, rows, **kwargs), x.detach().clone().requires_grad_()
    expected = alone(z, torch.searchsorted(rows, y))
    (expected * weights).sum().backward()
    close("values", values, expected)
    close("to embeddings", x.grad, z.grad)
    for (what, parameter), other in zip(loss.named_parameters(), alone.parameters(), strict=True):
        gradient = parameter.grad
        if gradient.is_sparse:
            assert gradient.shape == parameter.shape
            gradient = gradient.coalesce().values()
        close(what, gradient, other.grad)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_formula_of_arcface_on_the_drawn_classes(engine):
    loss, (x, y) = sample(ArcFace(C, D, margin=0.2, scale=8.0, engine=engine).double(), 0.3), batch()
    value = loss(x, y)
    value.backward()
    rows, w = drawn(loss), loss.weight.detach().clone().requires_grad_()
    c = F.normalize(x.detach()) @ F.normalize(w[rows]).T
    own = rows == y[:, None]
    z = 8 * torch.where(own, torch.cos(torch.acos(c) + 0.2), c)
    expected = (torch.logsumexp(z, 1) - z[own]).mean()
    (to_w,) = torch.autograd.grad(expected, w)
    close("value", value, expected)
    close("to weight", loss.weight.grad.to_dense(), to_w)


def test_a_share_of_the_classes_is_drawn_anew_each_step_and_again_after_a_resume():
    loss = sample(CosFace(20_000, D), 0.1, seed=5)
    x, y = torch.randn(4, D), torch.tensor([0, 7, 7, 19_999])

    def rows():
        loss.zero_grad()
        loss(x, y).backward()
        return drawn(loss)

    first, second = rows(), rows()
    for each in (first, second):
        # A binomial share: within five of its standard deviations.
        assert abs(len(each) - 2000) < 5 * math.sqrt(20_000 * 0.1 * 0.9)
        assert {0, 7, 19_999} <= set(each.tolist())
    both = len(set(first.tolist()) & set(second.tolist()))
    assert abs(both - 200) < 5 * math.sqrt(20_000 * 0.01)
    state = copy.deepcopy(loss.state_dict())
    third = rows()
    loss.load_state_dict(state)
    assert torch.equal(rows(), third)
    other = sample(CosFace(20_000, D), 0.1, seed=6)
    other(x, y).backward()
    assert not torch.equal(drawn(other), first)


def test_calls_that_are_accumulated_in_one_step_draw_the_same_classes():
    criterion = nearfar.compose("cosface", num_classes=400, embedding_size=D)
    head = sample(criterion.losses["cosface"], 0.2)
    optimizer = RowSGD(criterion.parameters(), lr=0.1)
    criterion.follow(optimizer)
    x, y, seen = torch.randn(2, D), torch.tensor([3, 5]), []
    for _ in range(2):
        criterion(x, y).backward()
        seen.append(set(drawn(head).tolist()))
    assert seen[0] == seen[1]
    optimizer.step()
    optimizer.zero_grad()
    criterion(x, y).backward()
    assert set(drawn(head).tolist()) != seen[0]


def test_in_evaluation_mode_and_at_a_rate_of_1_there_are_all_classes():
    loss, (x, y) = made("cosface"), batch()
    expected = loss(x, y)
    assert sample(loss, 1.0).sampler is None
    sample(loss, 0.1).eval()
    close("evaluation", loss(x, y), expected)
    assert loss.sampler.steps == 0
    loss.train()
    assert loss(x, y) < expected  # fewer classes to be taken for


class Counts(MarginSoftmax):
    """Keeps sums over the others."""

    surveys = True

    def survey(self, c: Tensor, rows):
        return torch.exp(c), torch.ones_like(c)

    def settle(self, rows, *sums):
        self.sums = torch.stack(sums)
        return rows


def test_sums_over_all_classes_are_right_on_average_and_the_same_on_every_engine():
    torch.manual_seed(0)
    whole = Counts(400, D, scale=1.0, engine="plain").double()
    x, y = batch(classes=400)
    whole(x, y)
    found = {}
    for engine in ENGINES:
        loss = sample(Counts(400, D, scale=1.0, engine=engine).double(), 0.25)
        loss.load_state_dict(whole.state_dict() | {"sampler.steps": torch.tensor(0)})
        found[engine] = torch.stack([loss(x, y) * 0 + loss.sums for _ in range(300)]).detach()
    close("engines", found["plain"], found["chunked"])
    draws = found["plain"]
    error = (draws.mean(0) - whole.sums) / (draws.std(0) / math.sqrt(len(draws)))
    assert error.abs().max() < 5
    assert draws.std(0).min() > 0
    assert whole.sums[1].unique().tolist() == [399]


def test_what_a_loss_adapts_to_means_the_same():
    """AdaCos's scale, of a sum over all classes; NPCFace's margins, of a mean of the hard ones."""
    torch.manual_seed(0)
    n, classes = 64, 4000
    y = torch.randint(classes, (n,))
    for make in (AdaCos, NPCFace):
        whole = make(classes, 16)
        nn.init.normal_(whole.weight)
        part = sample(copy.deepcopy(whole), 0.25)
        x = (whole.weight.detach()[y] + 0.5 * torch.randn(n, 16)).requires_grad_()
        whole(x, y)
        part(x, y)
        if make is AdaCos:
            assert abs(part.scale / whole.scale - 1) < 0.01
            assert abs(whole.scale / (math.sqrt(2) * math.log(classes - 1)) - 1) > 0.05  # it has moved
    for make in (lambda: CurricularFace(classes, 16), lambda: KappaFace(classes, 16, renewal=1)):
        whole = make()
        part = sample(copy.deepcopy(whole), 0.25)
        whole(x, y)
        part(x, y)
        for (name, buffer), other in zip(whole.named_buffers(), part.buffers(), strict=False):
            torch.testing.assert_close(buffer, other, msg=lambda m, name=name: f"{name}: {m}")


def test_two_calls_add_up_to_the_gradient_of_both():
    loss, (x, y) = sample(made("cosface"), 0.2), batch()
    parts = []
    for _ in range(2):
        loss.zero_grad()
        loss(x, y).backward()
        parts.append(loss.weight.grad.to_dense())
    loss.sampler.steps.zero_()
    loss.zero_grad()
    for _ in range(2):
        loss(x, y).backward()
    close("sum", loss.weight.grad.to_dense(), parts[0] + parts[1])


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is made, views of others left out."""

    def __init__(self):
        super().__init__()
        self.storages = set()
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor) and not t.is_sparse}
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            dense = isinstance(each, Tensor) and not each.is_sparse
            if dense and each.untyped_storage().data_ptr() not in given | self.storages:
                self.most = max(self.most, each.untyped_storage().nbytes() // each.element_size())
        return result


@pytest.mark.parametrize("optimizer", ["RowSGD", "RowAdamW", "FusedSGD"])
def test_a_step_makes_nothing_of_the_size_of_the_weight(optimizer):
    """But the state, once. What is made has the size of the sample, of a chunk, or of the classes alone."""
    classes, dim = 60_000, 64
    loss = CosFace(classes, dim, engine="chunked")
    if optimizer == "FusedSGD":
        steps = FusedSGD(loss, 0.1, momentum=0.9)
        loss.memory_budget = 0.0
    else:
        sample(loss, 0.1)
        steps = RowSGD([loss.weight], 0.1, momentum=0.9) if optimizer == "RowSGD" else RowAdamW([loss.weight], 0.1)
    x, y = torch.randn(256, dim), torch.randint(classes, (256,))

    def step():
        loss(x, y).backward()
        steps.step()
        steps.zero_grad()

    step()
    largest = Largest()
    largest.storages = {t.untyped_storage().data_ptr() for t in (loss.weight, *steps.state[loss.weight].values())}
    with largest:
        step()
    # A chunk of logits is 2²⁰ numbers.
    assert 0 < largest.most <= 1 << 20 < classes * dim / 3


def test_what_cannot_be_sampled_is_told_why():
    for rate in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ArgumentError, match=r"above 0 and up to 1|finite number"):
            sample(CosFace(C, D), rate)
    with pytest.raises(ArgumentError, match="seed of sampled classes"):
        sample(CosFace(C, D), 0.1, seed=-1)
    with pytest.raises(ArgumentError, match=r"CosFace is sampled already, with rate=0\.1"):
        sample(sample(CosFace(C, D), 0.1), 0.2)
    with pytest.raises(ArgumentError, match="Linear is not computed by an engine"):
        sample(nn.Linear(2, 2), 0.1)
    fused = CosFace(C, D)
    FusedSGD(fused, 0.1)
    with pytest.raises(ArgumentError, match="use RowSGD"):
        sample(fused, 0.1)
