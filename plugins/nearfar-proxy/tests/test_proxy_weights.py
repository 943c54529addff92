"""Proxies from pytorch-metric-learning's losses, and to them: the same value on either side."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses as pml

from nearfar.errors import ArgumentError
from nearfar.nn.class_weights import class_vectors, load_weight, save_weight
from nearfar_proxy.center import Center
from nearfar_proxy.proxy_anchor import ProxyAnchor
from nearfar_proxy.proxy_gml import ProxyGML
from nearfar_proxy.proxy_nca import ProxyNCA
from nearfar_proxy.soft_triple import SoftTriple

C, D, K = 7, 4, 3
#: Ours, theirs, and how theirs keeps its proxies.
PAIRS = {
    "proxy_nca": (
        lambda: ProxyNCA(C, D, scale=3.0, denominator="all"),
        lambda: pml.ProxyNCALoss(C, D, softmax_scale=3.0),
        "rows",
        "proxies",
    ),
    "proxy_anchor": (lambda: ProxyAnchor(C, D), lambda: pml.ProxyAnchorLoss(C, D), "rows", "proxies"),
    "soft_triple": (
        lambda: SoftTriple(C, D, centers=K, tau=0.0),
        lambda: pml.SoftTripleLoss(C, D, centers_per_class=K),
        "columns",
        "fc",
    ),
}


def batch():
    g = torch.Generator().manual_seed(0)
    return torch.randn(9, D, generator=g), torch.randint(C, (9,), generator=g)


def unnormalised(loss):
    with torch.no_grad():
        for p in loss.parameters():
            p.normal_(std=3.0)
    return loss


@pytest.mark.parametrize("name", PAIRS)
def test_pytorch_metric_learnings_loss_and_ours_have_one_value_after_either_way(name):
    make, make_theirs, layout, key = PAIRS[name]
    ours, theirs, (x, y) = make(), unnormalised(make_theirs()), batch()
    before = ours(x, y)
    load_weight(ours, theirs)
    torch.testing.assert_close(ours(x, y), theirs(x, y))
    assert not torch.allclose(ours(x, y), before)
    unnormalised(ours)
    assert not torch.allclose(ours(x, y), theirs(x, y))
    theirs.load_state_dict(class_vectors(ours, layout, key=key))
    torch.testing.assert_close(theirs(x, y), ours(x, y))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    "make",
    [
        *(pair[0] for pair in PAIRS.values()),
        lambda: ProxyGML(C, D, proxies_per_class=K, ratio=0.5),
    ],
)
@pytest.mark.parametrize(("layout", "key"), [("rows", "proxies"), ("columns", "fc"), ("rows", None)])
def test_what_is_written_is_read_to_the_last_bit(tmp_path, suffix, make, layout, key):
    one, other = unnormalised(make()), make()
    (path,) = save_weight(one, tmp_path / f"proxies.{suffix}", layout=layout, key=key)
    load_weight(other, path)
    assert torch.equal(one.weight, other.weight)


def test_as_many_centres_as_dimensions_have_to_be_told():
    ours, theirs = SoftTriple(2, D, centers=2), pml.SoftTripleLoss(2, D, centers_per_class=2)
    with pytest.raises(ArgumentError, match=r"say layout='rows'.*'columns'"):
        load_weight(ours, theirs)
    load_weight(ours, theirs, layout="columns")
    assert torch.equal(ours.weight[1], theirs.fc.T[2:])


@pytest.mark.parametrize("make", [lambda: Center(C, D), lambda: ProxyNCA(C, D, assignment="dynamic", num_proxies=3)])
def test_a_loss_without_vectors_for_each_class_is_refused(make):
    with pytest.raises(ArgumentError, match="has no weight with vectors for each of its classes"):
        load_weight(make(), torch.zeros(C, D))
    with pytest.raises(ArgumentError, match="has no weight with vectors for each of its classes"):
        class_vectors(make())
