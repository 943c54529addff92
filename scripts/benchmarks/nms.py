"""Suppression of overlapping boxes, by IoU and by distance IoU: nearfar's against torchvision's, which has IoU alone.

Boxes lie in clusters round objects, as a detector's do, or anywhere: ``--spread``.
"""

from __future__ import annotations

from measure import main


def ways(args, tiny):
    import torch
    from torchvision import ops

    from nearfar_iou.suppression import cluster_nms, diou_nms, nms

    generator = torch.Generator().manual_seed(0)
    n = 50 if tiny else args.n

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    if args.spread == "anywhere":
        corner, side = 1000 * draw(n, 2), 10 + 90 * draw(n, 2)
    else:
        objects = max(1, n // 50)
        own = torch.randint(objects, (n,), generator=generator)
        corner = (1000 * draw(objects, 2))[own] + 20 * draw(n, 2)
        side = (20 + 180 * draw(objects, 2))[own] * (0.8 + 0.4 * draw(n, 2))
    boxes, scores = torch.cat((corner, corner + side), 1), draw(n)

    def step(function):
        return lambda: function(boxes, scores, args.threshold)

    if not args.peak:
        expected = ops.nms(boxes, scores, args.threshold)
        assert torch.equal(nms(boxes, scores, args.threshold), expected)
        assert torch.equal(cluster_nms(boxes, scores, args.threshold), expected)
    return {"nms": step(nms), "torchvision": step(ops.nms), "diou_nms": step(diou_nms)}


if __name__ == "__main__":
    main(__doc__, ways, {"--n": 5000, "--threshold": 0.5, "--spread": "objects"})
