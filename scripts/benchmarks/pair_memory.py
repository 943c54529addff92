"""Peak memory of losses on pairs and triplets with every miner and reducer that fits them, a line of JSON each."""

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
MARGINS = {"semihard": 0.2, "easy": 0.2}
#: What reducers are given, in a batch of so many classes.
REDUCERS = {
    "class_weighted": lambda classes: f"(class_weights={[1.0] * classes})",
    "threshold": lambda classes: "(low=0.1)",
    "top_k": lambda classes: "(k=64)",
}


def compositions(losses, miners, reducers):
    """Recipes, and the names of reducers, empty for the loss's own, of which those that do not fit are left out."""
    import nearfar

    for loss in nearfar.list_losses("pair.*"):
        if loss in AROUND or not fnmatch.fnmatch(loss, losses):
            continue
        for miner in ["", *nearfar.list_miners("pair.*")]:
            if fnmatch.fnmatch(miner, miners):
                margin = f"(margin={MARGINS[miner]})" if miner in MARGINS else ""
                recipe = f"pair.{loss}(miner=pair.{miner}{margin})" if miner else f"pair.{loss}"
                for reducer in ["", *nearfar.list_reducers("core.*")]:
                    if fnmatch.fnmatch(reducer, reducers) and _fits(recipe, reducer):
                        yield recipe, reducer


def _fits(recipe, reducer):
    import nearfar

    whole = nearfar.Recipe.of(recipe, **reduced(reducer, 2))
    return not any(problem.severity == "error" for problem in whole.check(num_classes=2, embedding_size=2))


def reduced(reducer, classes):
    """The reducer, as an argument."""
    return {"reducer": f"core.{reducer}{REDUCERS.get(reducer, lambda classes: '')(classes)}"} if reducer else {}


def way(recipe, reducer, n, args):
    """A step, forward and backward, on a batch of n embeddings."""
    import torch

    import nearfar

    torch.manual_seed(0)
    labels = (torch.arange(n) // args.per_class)[torch.randperm(n)]
    # Half of the way to clusters, so that triplets of every kind are many.
    data = torch.randn(n, args.dim)[labels] * 0.5 + torch.randn(n, args.dim)
    classes = math.ceil(n / args.per_class)
    criterion = nearfar.compose(recipe, **reduced(reducer, classes), num_classes=n, embedding_size=args.dim)
    x = data.requires_grad_()
    view = data.detach() + 0.3 * torch.randn(n, args.dim)
    reference = {"ref_emb": view} if args.reference or recipe.split(".")[1] in OF_VIEWS else {}
    if args.reference:
        reference["ref_labels"] = labels

    def step():
        x.grad = None
        criterion(x, labels, **reference).backward()

    return step


def megabytes(recipe, reducer, n, args):
    """MB of one step in this process; None where it has not the room."""
    warm = argparse.Namespace(**vars(args))
    for _ in range(2):
        way(recipe, reducer, 400, warm)()  # too large for the whole matrix at once, so that rows are warmed up
    ctypes.CDLL(None).malloc_trim(0)  # what warming up has freed would be at hand otherwise
    step = way(recipe, reducer, n, args)
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
    parser.add_argument("--reducers", default="", help="pattern; an empty one for those of the losses alone")
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
    for recipe, reducer in compositions(args.losses, args.miners, args.reducers):
        peaks, seconds = {}, 0.0
        for n in args.n:
            measured = forked(lambda recipe=recipe, reducer=reducer, n=n: megabytes(recipe, reducer, n, args))
            if measured is None:
                break
            peaks[n], seconds = measured
            if peaks[n] is None or 4 * peaks[n] > args.limit:
                break
        found = {"composition": recipe, "reducer": reducer, "megabytes": peaks, "seconds": seconds}
        last = [peak for peak in peaks.values() if peak]
        if len(last) > 1:
            found["power"] = round(math.log2(last[-1] / last[-2]), 2)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
