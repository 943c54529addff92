"""ArcFace over many classes, forward and backward: nearfar's plain engine against pytorch-metric-learning's."""

from __future__ import annotations

from measure import main


def ways(args, tiny):
    import math

    import torch
    from pytorch_metric_learning.losses import ArcFaceLoss

    import nearfar

    torch.manual_seed(0)
    n, classes = (4, 8) if tiny else (args.n, args.classes)
    x, y = torch.randn(n, args.dim), torch.randint(classes, (n,))
    criterion = nearfar.compose("arcface(preset='pml')", num_classes=classes, embedding_size=args.dim)
    theirs = ArcFaceLoss(classes, args.dim)
    with torch.no_grad():
        theirs.W.copy_(criterion.losses["arcface"].weight.T)

    def step(loss):
        loss.zero_grad()
        e = x.clone().requires_grad_()
        value = loss(e, y)
        value.backward()
        return value.item()

    assert args.peak or math.isclose(step(criterion), step(theirs), rel_tol=1e-4)
    return {"nearfar": lambda: step(criterion), "pytorch_metric_learning": lambda: step(theirs)}


if __name__ == "__main__":
    main(__doc__, ways, {"--n": 256, "--dim": 512, "--classes": 10_000}, repeats=7)
