"""The pairs of labelled embeddings: all of them, or as many as memory allows, drawn."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate.topk import check_embeddings, check_integers

#: Pairs whose embeddings are gathered at once.
_AT_ONCE = 2**14


def all_pairs(
    embeddings: Tensor, labels: Tensor, *, most: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """The cosine of every two of n embeddings, each pair once: n (n − 1)/2 of them.

    Each takes some forty bytes: 20,000 embeddings have 8 GB of pairs. ``most`` bounds them. What is then left out is
    chosen at random among the pairs of a kind, genuine or impostor, so that rates, which are shares of a kind, are
    estimated without bias; of the kind that has fewer, all are kept where they fit into half.

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.
    labels : Tensor
        (n,) integers: the identity of each.
    most : int, optional
        [2..inf] Pairs; unless given, all.
    seed : int
        Of the draw.

    Returns
    -------
    similarities, same, identities : Tensor
        (pairs,) float32 or wider, (pairs,) bool, (pairs, 2) of the labels' dtype: as :func:`verification_metrics`
        takes them.

    Raises
    ------
    InputError
        A shape, dtype or range does not fit.
    """
    check_embeddings("embeddings", embeddings)
    check_integers("labels", labels, len(embeddings))
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 2):
        raise InputError(f"most is {most!r}, but must be an integer of at least 2")
    x = F.normalize(embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)
    labels = labels.to(x.device)
    n = len(x)
    if most is None or n * (n - 1) // 2 <= most:
        first, second = torch.triu_indices(n, n, 1, device=x.device)
        # Row by row, so that neither pairs × d nor the whole matrix is made.
        similarities = torch.cat([x[row + 1 :] @ x[row] for row in range(n)])
    else:
        first, second = (side.to(x.device) for side in _drawn(labels.cpu(), most, seed))
        similarities = _between(x, first, second)
    identities = torch.stack([labels[first], labels[second]], 1)
    similarities.clamp_(-1, 1)  # rounding may leave a bit more, which is no cosine
    return similarities, identities[:, 0] == identities[:, 1], identities


def pair_similarities(embeddings: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The cosines of pairs that are listed, whatever their number: no more than some thousand are gathered at once.

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.
    first, second : Tensor
        (pairs,) integers, rows of the embeddings.

    Returns
    -------
    Tensor
        (pairs,) float32 or wider.

    Raises
    ------
    InputError
        A shape or dtype does not fit, or a row is not there.
    """
    check_embeddings("embeddings", embeddings)
    check_integers("first", first, len(first))
    check_integers("second", second, len(first))
    for name, rows in (("first", first), ("second", second)):
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(embeddings):
            raise InputError(f"{name} has rows from {int(rows.min())} to {int(rows.max())} of {len(embeddings)}")
    x = F.normalize(embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)
    return _between(x, first.to(x.device), second.to(x.device)).clamp_(-1, 1)


def _between(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The products of some rows with others, (pairs,)."""
    parts = zip(torch.split(first, _AT_ONCE), torch.split(second, _AT_ONCE), strict=True)
    return torch.cat([(x[one] * x[other]).sum(1) for one, other in parts])


def _drawn(labels: Tensor, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Both sides of ``most`` distinct pairs, drawn within each kind."""
    generator = torch.Generator().manual_seed(seed)
    _, of_class, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    within = counts * (counts - 1) // 2
    genuine = int(within.sum())
    impostors = len(labels) * (len(labels) - 1) // 2 - genuine
    taken = min(impostors, most - min(genuine, most // 2))
    one, other = _genuine(of_class, counts, within, min(genuine, most - taken), generator)
    first, second = _impostors(of_class, impostors, taken, generator)
    return torch.cat([one, first]), torch.cat([other, second])


def _genuine(
    of_class: Tensor, counts: Tensor, within: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pairs of one class: the pairs of all classes are numbered through, and numbers are drawn."""
    ends = within.cumsum(0)
    numbers = _distinct(int(within.sum()), count, generator)
    which = torch.searchsorted(ends, numbers, right=True)
    lower, upper = _of_number(numbers - (ends - within)[which])
    order, starts = of_class.argsort(stable=True), counts.cumsum(0) - counts
    return order[starts[which] + lower], order[starts[which] + upper]


def _impostors(of_class: Tensor, there: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of two classes: pairs are drawn, and those of one class are thrown away."""
    total = len(of_class) * (len(of_class) - 1) // 2
    tried = count
    while True:
        tried = min(total, tried + math.ceil(1.1 * count * (total / max(there, 1) - 1)) + 16)
        lower, upper = _of_number(_distinct(total, tried, generator))
        kept = (of_class[lower] != of_class[upper]).nonzero()[:count, 0]
        if len(kept) == count:
            return lower[kept], upper[kept]


def _distinct(total: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` different numbers below ``total``, in random order."""
    if total <= 4 * count:
        return torch.randperm(total, generator=generator)[:count]
    numbers = torch.empty(0, dtype=torch.int64)
    while len(numbers) < count:
        more = torch.randint(total, (count - len(numbers) + count // 4 + 1,), generator=generator)
        numbers = torch.unique(torch.cat([numbers, more]))
    return numbers[torch.randperm(len(numbers), generator=generator)[:count]]


def _of_number(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The pair i < j that has the number j (j − 1)/2 + i."""
    upper = ((1 + (1 + 8 * numbers.double()).sqrt()) / 2).long()
    # The root is rounded: it may be the next integer's.
    upper = upper - (upper * (upper - 1) // 2 > numbers).long()
    upper = upper + (upper * (upper + 1) // 2 <= numbers).long()
    return numbers - upper * (upper - 1) // 2, upper
