"""Miners alone, embeddings in and indices out: nearfar's and pytorch-metric-learning's, a line of JSON each."""

from __future__ import annotations

import argparse
import json
import math
import os

from measure import forked, peak_memory, pin, report, take_times

#: Miner and arguments → what it is in pytorch-metric-learning, and whether both choose the same.
MINERS = {
    "semihard": ({"margin": 0.2}, "TripletMarginMiner(0.2, 'semihard')", True),
    "hard": ({}, "TripletMarginMiner(0.2, 'hard')", True),
    "batch_hard": ({}, "BatchHardMiner()", True),
    "batch_easy_hard": ({}, "BatchEasyHardMiner()", True),
    "pair.multi_similarity": ({}, "MultiSimilarityMiner()", True),
    "pair_margin": ({}, "PairMarginMiner()", True),
    "pair.angular": ({"angle": math.radians(20)}, "AngularMiner()", True),
    # Where a share ends between the two ways of a pair, either may be in.
    "hdc": ({}, "HDCMiner()", False),
    # These draw from other random numbers.
    "distance_weighted": ({}, "DistanceWeightedMiner()", False),
    "uniform_histogram": ({}, "UniformHistogramMiner()", False),
}


def ways(name, n, per_class, dim, *, check):
    import torch
    from pytorch_metric_learning import miners

    import nearfar

    torch.manual_seed(0)
    labels = (torch.arange(n) // per_class)[torch.randperm(n)]
    data = torch.nn.functional.normalize(torch.randn(n, dim)[labels] * 0.5 + torch.randn(n, dim))
    arguments, theirs, same = MINERS[name]
    found = {"nearfar": nearfar.create_miner(name, **arguments), "pytorch_metric_learning": eval(theirs, vars(miners))}
    if check and same:
        first, second = (
            [set(map(tuple, zip(*part, strict=True))) for part in chosen(way, data.double(), labels)]
            for way in found.values()
        )
        assert first == second, name
    return {key: lambda way=way: way(data, labels) for key, way in found.items()}


def chosen(miner, data, labels):
    """Triplets, or positive pairs and negative pairs, as numbers."""
    indices = [index.tolist() for index in miner(data, labels)]
    return [indices] if len(indices) == 3 else [indices[:2], indices[2:]]


def peak(name, n, per_class, dim, way):
    for _ in range(3):
        ways(name, 400, per_class, dim, check=False)[way]()
    return peak_memory(ways(name, n, per_class, dim, check=False)[way])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--miners", nargs="*", choices=MINERS, default=[*MINERS], metavar="MINER")
    parser.add_argument("--n", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread's own time")
    args = parser.parse_args()
    pin(2 if args.clock == "wall" else 1)
    # What every copy of this process needs.
    import pytorch_metric_learning.miners  # noqa: F401

    import nearfar.nn  # noqa: F401

    for n in args.n:
        for name in args.miners:
            given = name, n, args.per_class, args.dim
            repeats = args.repeats or (3 if n > 512 else 10 if n > 64 else 40)
            times = forked(lambda given=given, n=n, r=repeats: take_times(ways(*given, check=n <= 64), r, args.clock))
            if times is None:
                raise SystemExit(f"{name} could not be measured")
            peaks = {way: forked(lambda given=given, way=way: peak(*given, way)) for way in times}
            found = {"miner": name, "n": n, "per_class": args.per_class, "load": os.getloadavg()[0]}
            print(json.dumps(found | report(times, peaks)), flush=True)
