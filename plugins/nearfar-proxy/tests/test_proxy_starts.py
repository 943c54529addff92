"""Where proxies and centres start, and proxies that are assigned as samples lie, against loops over plain numbers."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.distances import Cosine
from nearfar.nn.reducers import NoReduction
from nearfar_proxy.center import Center
from nearfar_proxy.contrastive_center import ContrastiveCenter
from nearfar_proxy.proxy_anchor import ProxyAnchor
from nearfar_proxy.proxy_gml import ProxyGML
from nearfar_proxy.proxy_nca import ProxyNCA
from nearfar_proxy.ring import Ring
from nearfar_proxy.soft_triple import SoftTriple
from nearfar_proxy.starts import initialize
from nearfar_proxy.triplet_center import TripletCenter

C, D = 6, 4


def batch(n=9, seed=2):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g, dtype=torch.float64), torch.randint(C, (n,), generator=g)


@pytest.mark.parametrize("cls", [ProxyNCA, ProxyAnchor, SoftTriple, ProxyGML, Center, ContrastiveCenter, TripletCenter])
def test_orthogonal_ones_are_at_right_angles_and_as_long_as_normal_ones(cls):
    few = {"ratio": 0.5} if cls is ProxyGML else {}
    torch.manual_seed(0)
    start, normal = (cls(8, 128, init=init, **few) for init in ("orthogonal", "normal"))
    rows, drawn = ((m.weight if hasattr(m, "weight") else m.centers).detach().flatten(0, -2) for m in (start, normal))
    length = rows.norm(dim=1)
    torch.testing.assert_close(length, length[0].expand_as(length))
    assert length[0].item() == pytest.approx(drawn.norm(dim=1).mean().item(), rel=0.05)
    assert (rows @ rows.T - torch.diag(length**2)).abs().max() < 1e-5 * length[0] ** 2


def test_more_than_dimensions_are_spread_evenly():
    torch.manual_seed(0)
    rows = ProxyNCA(4000, D, init="orthogonal").weight.detach()
    spread = rows.T @ rows / rows.square().sum() * D
    torch.testing.assert_close(spread, torch.eye(D), atol=0.05, rtol=0)


def test_the_seed_decides():
    for init in ("normal", "uniform", "orthogonal"):
        found = []
        for _ in range(2):
            torch.manual_seed(3)
            found.append(ProxyNCA(C, D, init=init).weight)
        assert torch.equal(*found)
    with pytest.raises(ArgumentError, match="init must be one of 'normal', 'uniform', 'orthogonal'; got 'zero'"):
        ProxyNCA(C, D, init="zero")
    with pytest.raises(ArgumentError, match="init must be one of 'zero', 'normal', 'orthogonal'"):
        Center(C, D, init="ones")


def test_centres_start_at_the_means_of_a_pass_and_the_classes_without_samples_stay():
    (x, y), (more, labels) = batch(), batch(5, seed=8)
    y, labels = y % (C - 1), labels % (C - 1)
    loss = Center(C, D, init="normal").double()
    old = loss.centers.clone()
    initialize(loss, iter([(x, y), (more, labels)]))
    for c in range(C):
        mine = [
            v for v, j in zip([*x.tolist(), *more.tolist()], [*y.tolist(), *labels.tolist()], strict=True) if j == c
        ]
        mean = [math.fsum(column) / len(mine) for column in zip(*mine, strict=True)] if mine else old[c].tolist()
        assert loss.centers[c].tolist() == pytest.approx(mean, rel=1e-12)


def test_proxies_start_in_the_mean_direction_and_keep_their_length():
    x, y = batch(30)
    loss = ProxyNCA(C, D).double()
    lengths = loss.weight.detach().norm(dim=1)
    initialize(loss, [(x, y)])
    torch.testing.assert_close(loss.weight.detach().norm(dim=1), lengths)
    for c in range(C):
        mean = sum(v / v.norm() for v in x[y == c])
        assert torch.cosine_similarity(loss.weight[c].detach(), mean, dim=0).item() == pytest.approx(1)


def test_several_proxies_of_a_class_are_dealt_its_samples_in_turn():
    """The first of a class and its fourth to its first proxy, whatever the batches; one without a sample stays."""
    x = torch.randn(4, D, dtype=torch.float64)
    loss = SoftTriple(2, D, centers=3).double()
    old = loss.weight.detach().clone()
    initialize(loss, [(x[:1], torch.tensor([1])), (x[1:], torch.tensor([1, 1, 1]))])
    unit = torch.nn.functional.normalize
    expected = [unit(x, dim=1)[0] + unit(x, dim=1)[3], x[1], x[2]]
    for found, direction in zip(loss.weight[1].detach(), expected, strict=True):
        assert torch.cosine_similarity(found, direction, dim=0).item() == pytest.approx(1)
    assert torch.equal(loss.weight[0], old[0])


def test_what_cannot_be_initialised_is_refused():
    x, y = batch()
    with pytest.raises(ArgumentError, match="Ring has neither proxies nor centres"):
        initialize(Ring(), [(x, y)])
    with pytest.raises(InputError, match="no embeddings"):
        initialize(Center(C, D), [])
    with pytest.raises(InputError, match="got labels -1"):
        initialize(Center(C, D), [(x, y - 1 - y.min())])
    with pytest.raises(InputError, match="not finite"):
        initialize(Center(C, D), [(x * math.inf, y)])
    with pytest.raises(InputError, match="embedding_size=4"):
        initialize(Center(C, D), [(x[:, :3], y)])


def squared(a, b):
    a, b = ([v / math.hypot(*p) for v in p] for p in (a, b))
    return math.dist(a, b) ** 2


def dynamic(x, y, proxies, scale, distance=squared):
    """Equation 4 of the paper for the triplets (x, y, Z) of each sample, averaged over its positives y."""
    nearest = [min(range(len(proxies)), key=lambda p, a=a: distance(a, proxies[p])) for a in x]
    found = []
    for i, a in enumerate(x):
        positives = [j for j in range(len(x)) if j != i and y[j] == y[i]]
        negatives = {nearest[j] for j in range(len(x)) if y[j] != y[i]}
        below = math.fsum(math.exp(-scale * distance(a, proxies[p])) for p in negatives)
        each = [scale * distance(a, proxies[nearest[j]]) + math.log(below) for j in positives] if negatives else []
        found.append(math.fsum(each) / len(each) if each else None)
    return found


def assigned(**arguments):
    torch.manual_seed(1)
    return ProxyNCA(C, D, assignment="dynamic", num_proxies=3, **arguments).double()


@pytest.mark.parametrize("scale", [1.0, 9.0])
def test_dynamic_assignment_is_the_papers(scale):
    x, y = batch()
    loss = assigned(scale=scale)
    assert loss.weight.shape == (3, D)
    expected = dynamic(x.tolist(), y.tolist(), loss.weight.tolist(), scale)
    assert None in expected  # a class of one sample, which does not count
    values = assigned(scale=scale, reducer=NoReduction())(x, y)
    assert values.tolist() == pytest.approx([v or 0.0 for v in expected], rel=1e-10)
    counted = [v for v in expected if v is not None]
    assert loss(x, y).item() == pytest.approx(math.fsum(counted) / len(counted), rel=1e-10)
    # Labels only say what belongs together.
    torch.testing.assert_close(loss(x, 1000 - 7 * y), loss(x, y))


def test_dynamic_assignment_takes_a_similarity():
    x, y = batch()
    loss = assigned(distance=Cosine(), reducer=NoReduction())
    expected = dynamic(x.tolist(), y.tolist(), loss.weight.tolist(), 1.0, lambda a, b: squared(a, b) / 2 - 1)
    assert loss(x, y).tolist() == pytest.approx([v or 0.0 for v in expected], rel=1e-9, abs=1e-12)


def test_dynamic_gradients_are_those_of_finite_differences():
    x, y = batch()
    loss = assigned(scale=2.0)

    def value(x, weight):
        return torch.func.functional_call(loss, {"weight": weight}, (x, y))

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.weight.detach().clone().requires_grad_()))


@pytest.mark.parametrize("labels", [[], [1], [2, 2], [0, 1]], ids=["empty", "one", "one_class", "no_positives"])
def test_of_a_batch_without_triplets_a_dynamic_loss_is_zero(labels):
    x = torch.ones(len(labels), D, dtype=torch.float64, requires_grad=True)
    value = assigned()(x, torch.tensor(labels, dtype=torch.long))
    value.backward()
    assert value.item() == 0
    assert (x.grad == 0).all()


def test_a_set_that_does_not_fit_is_refused():
    with pytest.raises(ArgumentError, match="needs num_proxies, 1 to 6"):
        ProxyNCA(C, D, assignment="dynamic")
    with pytest.raises(ArgumentError, match="say assignment='dynamic' for a smaller set"):
        ProxyNCA(C, D, num_proxies=3)
    with pytest.raises(ArgumentError, match="dynamic assignment has none"):
        ProxyNCA(C, D, assignment="dynamic", num_proxies=3, denominator="all")
