"""GIoU loss, forward and backward: nearfar's against torchvision's."""

from __future__ import annotations

from measure import main


def ways(args, tiny):
    import torch
    from torchvision.ops import generalized_box_iou_loss

    import nearfar

    torch.manual_seed(0)
    n = 16 if tiny else args.n
    corner = torch.rand(n, 2)
    target = torch.cat([corner, corner + 0.1 + torch.rand(n, 2)], 1)
    pred = (target + 0.01 * torch.randn(n, 4)).requires_grad_()
    criterion = nearfar.compose("giou", reducer="sum")

    def step(value):
        pred.grad = None
        result = value(pred, target)
        result.backward()
        return result.item()

    def theirs(p, t):
        return generalized_box_iou_loss(p, t, reduction="sum")

    assert args.peak or abs(step(criterion) / step(theirs) - 1) < 1e-4
    return {"nearfar": lambda: step(criterion), "torchvision": lambda: step(theirs)}


if __name__ == "__main__":
    main(__doc__, ways, {"--n": 100_000})
