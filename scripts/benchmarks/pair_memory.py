"""Peak memory of every loss on pairs and triplets with every miner that fits it, a line of JSON each."""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import json
import math
import resource

from measure import forked, peak_memory, pin

#: Called with another loss, not with embeddings alone.
AROUND = {"cross_batch_memory", "gather", "matryoshka", "symmetric"}
#: Of two views, the second of which is the first with noise.
OF_VIEWS = {"vicreg"}
#: What the losses that have no margin give these miners.
MARGINS = {"semihard": 0.2, "hard": 0.0, "easy": 0.2}


def compositions(losses, miners):
    """``(loss, miner)`` by name, the miner empty for none, of which recipes that do not fit are left out."""
    import nearfar

    for loss in nearfar.list_losses("pair.*"):
        if loss in AROUND or not fnmatch.fnmatch(loss, losses):
            continue
        for miner in ["", *nearfar.list_miners("pair.*")]:
            if fnmatch.fnmatch(miner, miners):
                margin = f"(margin={MARGINS[miner]})" if miner in MARGINS else ""
                recipe = f"pair.{loss}(miner=pair.{miner}{margin})" if miner else f"pair.{loss}"
                problems = nearfar.Recipe.of(recipe).check(num_classes=2, embedding_size=2)
                if not any(problem.severity == "error" for problem in problems):
                    yield recipe


def way(recipe, n, args):
    """A step, forward and backward, on a batch of n embeddings."""
    import torch

    import nearfar

    torch.manual_seed(0)
    labels = (torch.arange(n) // args.per_class)[torch.randperm(n)]
    # Half of the way to clusters, so that triplets of every kind are many.
    data = torch.randn(n, args.dim)[labels] * 0.5 + torch.randn(n, args.dim)
    criterion = nearfar.compose(recipe, num_classes=n, embedding_size=args.dim)
    x = data.requires_grad_()
    view = data.detach() + 0.3 * torch.randn(n, args.dim)
    reference = {"ref_emb": view} if args.reference or recipe.split(".")[1] in OF_VIEWS else {}
    if args.reference:
        reference["ref_labels"] = labels

    def step():
        x.grad = None
        criterion(x, labels, **reference).backward()

    return step


def megabytes(recipe, n, args):
    """MB of one step in this process; None where it has not the room."""
    warm = argparse.Namespace(**vars(args))
    for _ in range(2):
        way(recipe, 320, warm)()  # too large for the whole matrix at once, so that rows are warmed up
    ctypes.CDLL(None).malloc_trim(0)  # what warming up has freed would be at hand otherwise
    step = way(recipe, n, args)
    used = resource.getrusage(resource.RUSAGE_SELF)
    held = _data()
    resource.setrlimit(resource.RLIMIT_DATA, (held + args.limit * 2**20,) * 2)
    try:
        peak = peak_memory(step)
    except (RuntimeError, MemoryError) as error:
        if "allocate" not in str(error) and not isinstance(error, MemoryError):
            raise
        return None, 0.0
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return round(peak, 1), round(spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime, 3)


def _data():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--losses", default="*", help="pattern")
    parser.add_argument("--miners", default="*", help="pattern; an empty one for losses alone")
    parser.add_argument("--n", nargs="+", type=int, default=[1024, 2048, 4096], help="each twice the one before")
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--limit", type=int, default=4096, help="MB from which on a larger batch is not tried")
    parser.add_argument("--reference", action="store_true", help="a reference set as large as the batch")
    args = parser.parse_args()
    pin(1)

    import warnings

    import nearfar.nn  # noqa: F401  # what every copy of this process needs
    from nearfar.errors import NearfarWarning

    warnings.simplefilter("ignore", NearfarWarning)
    for recipe in compositions(args.losses, args.miners):
        peaks, seconds = {}, 0.0
        for n in args.n:
            measured = forked(lambda recipe=recipe, n=n: megabytes(recipe, n, args))
            if measured is None:
                break
            peaks[n], seconds = measured
            if peaks[n] is None or 4 * peaks[n] > args.limit:
                break
        found = {"composition": recipe, "megabytes": peaks, "seconds": seconds}
        last = [peak for peak in peaks.values() if peak]
        if len(last) > 1:
            found["power"] = round(math.log2(last[-1] / last[-2]), 2)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
