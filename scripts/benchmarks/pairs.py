"""Losses on pairs and triplets, forward and backward: nearfar's, pytorch-metric-learning's, and dense autograd.

nearfar's are by compiled kernels where there are any and numba is installed, and "torch" is without.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import math
import os
import sys

from dense import DENSE
from measure import forked, main, peak_memory, pin, report, take_times

#: Composition → what it is in pytorch-metric-learning, a loss and a miner, and whether both give the same value.
THEIRS = {
    "triplet(margin=0.2)": ("TripletMarginLoss(0.2)", "", True),
    "triplet(margin=0.2, miner=semihard)": ("TripletMarginLoss(0.2)", "TripletMarginMiner(0.2, 'semihard')", True),
    "triplet(margin=0.2, miner=hard)": ("TripletMarginLoss(0.2)", "TripletMarginMiner(0.2, 'hard')", True),
    "triplet(margin=0.2, miner=batch_hard)": ("TripletMarginLoss(0.2)", "BatchHardMiner()", True),
    "multi_similarity(base=0.5, miner=multi_similarity)": ("MultiSimilarityLoss()", "MultiSimilarityMiner()", True),
    "multi_similarity(base=0.5)": ("MultiSimilarityLoss()", "", True),
    "circle": ("CircleLoss()", "", True),
    "fast_ap": ("FastAPLoss()", "", True),
    'contrastive(hinge="linear")': ("ContrastiveLoss()", "", True),
    "sup_con": ("SupConLoss()", "", True),
    # Theirs adds 1e-5 to each weight.
    "ranked_list": ("RankedListLoss(0.4, 10, alpha=1.2)", "", False),
    "generalized_lifted": ("GeneralizedLiftedStructureLoss()", "", True),
    "nt_xent": ("NTXentLoss(0.1)", "", True),
    "lifted_structure": ("LiftedStructureLoss()", "", True),
    "nca": ("NCALoss()", "", True),
    "snr_contrastive": ("SignalToNoiseRatioContrastiveLoss()", "", True),
    "intra_pair_variance": ("IntraPairVarianceLoss()", "", True),
    # Theirs has a margin in degrees.
    "tuplet_margin": (f"TupletMarginLoss({math.degrees(0.1)})", "", True),
    "threshold_consistent_margin": ("ThresholdConsistentMarginLoss()", "", True),
    # Theirs finds the bins in float32, whatever the embeddings are.
    "histogram": ("HistogramLoss(n_bins=100)", "", False),
    # Theirs takes two of each class only: not the same of more, and a quarter of the work at four.
    "n_pair": None,
    "n_pair(l2_weight=0, distance=cosine)": ("NPairsLoss()", "", True),
    # Theirs counts a pair once for each triplet that it is in.
    "margin_beta": ("MarginLoss()", "", False),
    # Theirs takes each anchor for a positive of itself.
    "pnp": ("PNPLoss(variant='Dq')", "", False),
    # Theirs takes the number of samples a class has for the number of classes.
    "smooth_ap": ("SmoothAPLoss()", "", False),
    # Theirs draws from other random numbers.
    "margin_beta(miner=distance_weighted)": ("MarginLoss()", "DistanceWeightedMiner()", False),
    # Theirs fails at its second step: its histogram keeps the graph of the first.
    "dynamic_soft_margin": None,
    # The values of these two are not compared.
    "angular": ("AngularLoss()", "", False),
    "vicreg": ("VICRegLoss()", "", False),
    "instance": None,
    "quadruplet": None,
    "centroid_triplet": None,
    "decoupled_contrastive(sigma=0.5)": None,
    "recall_at_k": None,
    "info_nce": None,
    "decoupled_contrastive": None,
    "siglip": None,
    "hinge_pair": None,
    "arcface_triplet": None,
    "graded_log_ratio": None,
}
#: From how many entries of pairs by negatives, or of triplets, on a way is left out, as it would not fit.
MOST = 2**28
#: What draws anew at each call, or remembers the last.
DRAWN = {"margin_beta(miner=distance_weighted)", "dynamic_soft_margin"}
#: Losses of two views, the second of which is the first with noise.
OF_VIEWS = {"vicreg"}
#: Losses on the paper's batches of two of each class, whatever else is measured: the first an anchor, the second its
#: positive.
OF_PAIRS = {"n_pair(l2_weight=0, distance=cosine)"}
BY_PAIRS_AND_NEGATIVES = {"NTXentLoss", "LiftedStructureLoss", "TupletMarginLoss"}
BY_TRIPLETS = {"HistogramLoss", "MarginLoss", "PNPLoss", "AngularLoss", "SmoothAPLoss"}


def ways(args, tiny):
    import torch

    import nearfar
    from nearfar.nn.compiled import eager_only

    torch.manual_seed(0)
    # Tiny is still too large for the whole matrix at once, so that rows are warmed up too.
    n, per_class = (400 if tiny else args.n), samples(args.composition, args.per_class)
    labels = torch.arange(n) // per_class
    labels = labels[torch.randperm(n)]
    # Half of the way to clusters, so that triplets of every kind are many.
    data = torch.randn(n, args.dim)[labels] * 0.5 + torch.randn(n, args.dim)
    view = data + 0.3 * torch.randn(n, args.dim)
    criterion = nearfar.compose(args.composition, num_classes=n, embedding_size=args.dim)
    theirs, same = their_way(args.composition, args.n, per_class)
    dense = DENSE.get(args.composition)
    if args.composition in OF_PAIRS:
        criterion, dense = (by_pairs(way, labels) for way in (criterion, dense))

    def step(value, dtype=torch.float32):
        x = data.to(dtype, copy=True).requires_grad_()
        given, named = ((), {"ref_emb": view.to(dtype)}) if args.composition in OF_VIEWS else ((labels,), {})
        result = value(x, *given, **named)
        result.backward()
        return result.detach(), x.grad

    def by_torch(*given, **named):
        with eager_only():
            return criterion(*given, **named)

    peers = {"torch": by_torch, "pytorch_metric_learning": theirs, "dense": dense}
    peers = {name: way for name, way in peers.items() if way is not None}
    if not args.peak and n <= 256:
        ours = step(criterion, torch.float64)
        for name, way in peers.items():
            if same if name == "pytorch_metric_learning" else name == "dense" or args.composition not in DRAWN:
                torch.testing.assert_close(step(way, torch.float64), ours, rtol=1e-6, atol=1e-12, msg=name)
        if args.composition not in DRAWN:  # kernels are of float32
            torch.testing.assert_close(step(criterion), step(by_torch), rtol=1e-4, atol=1e-5)
    return {name: lambda way=way: step(way) for name, way in {"nearfar": criterion, **peers}.items()}


def samples(composition, per_class):
    """How many embeddings there are of each class."""
    return 2 if composition in OF_PAIRS else per_class


def by_pairs(way, labels):
    """A way that compares the first embedding of each class with the second ones."""
    first, second = labels.argsort(stable=True).view(-1, 2).unbind(1)
    return lambda x, y: way(x[first], y[first], ref_emb=x[second], ref_labels=y[second])


def their_way(composition, n, per_class):
    """The same in pytorch-metric-learning, or None where it has no such loss or not the memory; and if values agree."""
    from pytorch_metric_learning import losses, miners

    found = THEIRS[composition]
    if found is None:
        return None, False
    loss, miner, same = found
    name = loss.partition("(")[0]
    positives, negatives = n * (per_class - 1), n * (n - per_class)
    entries = {**dict.fromkeys(BY_PAIRS_AND_NEGATIVES, positives * negatives), **dict.fromkeys(BY_TRIPLETS, n**3)}
    if entries.get(name, 0) > MOST:
        return None, False
    loss = eval(loss, vars(losses))
    if not miner:
        return loss, same
    miner = eval(miner, vars(miners))
    return lambda x, y: loss(x, y, miner(x, y)), same


def table(args):
    """Every composition at every size, a line of JSON each; times and each peak in a process of their own.

    What has failed, or does not agree, is said in the end.
    """
    pin(2 if args.clock == "wall" else 1)
    # What every copy of this process needs.
    import pytorch_metric_learning.losses
    import pytorch_metric_learning.miners  # noqa: F401

    import nearfar.train  # noqa: F401

    failed = []
    for n, given, composition in itertools.product(args.n, args.per_class, args.compositions or THEIRS):
        per_class = samples(composition, given)
        one = argparse.Namespace(composition=composition, n=n, per_class=per_class, dim=args.dim, peak="")
        repeats = args.repeats or (3 if n > 2000 else 7 if n > 256 else 15 if n > 64 else 40)
        times = forked(lambda one=one, repeats=repeats: take_times(ways(one, False), repeats, args.clock))
        one.peak = "yes"
        peaks = {name: forked(lambda one=one, name=name: peak(one, name)) for name in times or ()}
        if times is None or None in peaks.values():
            failed.append(f"{composition} at n={n}, per_class={per_class}")
            continue
        found = {"composition": composition, "n": n, "per_class": per_class, "load": os.getloadavg()[0]}
        print(json.dumps(found | report(times, peaks)), flush=True)
    if failed:
        sys.exit("\n".join(["no row, as the traceback above says:", *failed]))


def peak(args, name):
    way = ways(args, False)[name]
    for _ in range(3):  # what is loaded and set up for these sizes, once
        way()
    ctypes.CDLL(None).malloc_trim(0)  # what these have freed would be at hand otherwise
    return peak_memory(way)


if __name__ == "__main__":
    if "--table" in sys.argv:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--table", action="store_true", help="all compositions at all sizes, a line each")
        parser.add_argument("--compositions", nargs="*")
        parser.add_argument("--n", nargs="+", type=int, default=[64, 256, 1024, 4096])
        parser.add_argument("--per-class", nargs="+", type=int, default=[4])
        parser.add_argument("--dim", type=int, default=128)
        parser.add_argument("--repeats", type=int, default=0)
        parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
        table(parser.parse_args())
    else:
        main(__doc__, ways, {"--n": 1024, "--per-class": 4, "--dim": 128, "--composition": "circle"})
