"""Triplet loss with a miner, forward and backward: nearfar's against pytorch-metric-learning's."""

from __future__ import annotations

from measure import main

MARGIN = 0.2


def ways(args, tiny):
    import torch
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import TripletMarginMiner

    import nearfar

    torch.manual_seed(0)
    n = 16 if tiny else args.n
    classes = -(-n // args.per_class)
    labels = torch.arange(classes).repeat_interleave(args.per_class)[:n]
    # Half of the way to clusters, so that triplets of every kind are many.
    data = torch.randn(classes, args.dim)[labels] * 0.5 + torch.randn(n, args.dim)
    # Theirs calls `all` what violates the margin; a hinge costs nothing for the others.
    criterion = nearfar.compose(f"triplet(margin={MARGIN})", miner=args.kind)
    loss, miner = TripletMarginLoss(MARGIN), TripletMarginMiner(MARGIN, type_of_triplets=args.kind)

    def step(value, dtype=torch.float32):
        x = data.to(dtype, copy=True).requires_grad_()
        result = value(x, labels)
        result.backward()
        return result.item(), x.grad

    def theirs(x, y):
        return loss(x, y, miner(x, y))

    if not args.peak:
        (value, gradient), (their_value, their_gradient) = (step(f, torch.float64) for f in (criterion, theirs))
        assert abs(value - their_value) <= 1e-12 * abs(their_value), (value, their_value)
        torch.testing.assert_close(gradient, their_gradient)
    return {"nearfar": lambda: step(criterion), "pytorch_metric_learning": lambda: step(theirs)}


if __name__ == "__main__":
    main(__doc__, ways, {"--n": 512, "--per-class": 4, "--dim": 128, "--kind": "semihard"})
