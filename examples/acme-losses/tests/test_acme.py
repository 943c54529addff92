import pytest
import torch

import nearfar

X = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([0, 0, 1, 1])


def test_the_loss_is_its_formula():
    # Anchor 0: positive at √0.4, negatives at √2 and 2; the other anchors alike, worked out by hand.
    d = torch.cdist(X, X).tolist()
    triplets = [(0, 1, 2), (0, 1, 3), (1, 0, 2), (1, 0, 3), (2, 3, 0), (2, 3, 1), (3, 2, 0), (3, 2, 1)]
    import math

    expected = [max(0.0, math.log(d[a][p] / d[a][n]) + 0.5) for a, p, n in triplets]
    loss = nearfar.compose("acme.log_ratio", reducer="none")
    assert loss(X, Y).tolist() == pytest.approx(expected)


def test_the_miner_takes_the_nearest_negative_of_each_positive_pair():
    a, p, n = nearfar.create_miner("acme.nearest_impostor")(X, Y)
    assert list(zip(a.tolist(), p.tolist(), n.tolist(), strict=True)) == [(0, 1, 2), (1, 0, 2), (2, 3, 1), (3, 2, 1)]
