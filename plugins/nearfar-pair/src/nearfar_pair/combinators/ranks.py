"""Tensors of all ranks, one after the other, with a way back for gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn.batch import check_embeddings
from nearfar.nn.labels import GRADED_RULES, RULES, Grades, Labels, RuledLabels
from nearfar.nn.ranks import rows_of_all
from nearfar.nn.selection import Selection, as_selection

__all__ = ["Call", "collected", "world_size"]

#: What ranks have to agree on, in the order in which they tell each other.
_ALIKE = (
    "the embedding size",
    "the dtype of embeddings",
    "labels",
    "the rule of labels",
    "ref_emb",
    "ref_labels",
    "an indices_tuple",
)
#: Rules of labels, which tell each other their numbers.
_RULES = (*RULES, *GRADED_RULES)


class Call(NamedTuple):
    """What an embedding loss is called with."""

    embeddings: Tensor
    labels: Labels | None = None
    indices_tuple: Selection | Sequence[Tensor] | None = None
    ref_emb: Tensor | None = None
    ref_labels: Labels | None = None


def world_size() -> int:
    """How many processes there are; 1 where none were told of each other."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def collected(call: Call) -> Call:
    """The calls of all ranks as one, in the order of the ranks.

    Raises
    ------
    InputError
        On every rank, where one of them was given what cannot be used, or the ranks do not agree.
    """
    error: InputError | None = None
    try:
        embeddings = check_embeddings(call.embeddings, "embeddings")
        reference = None if call.ref_emb is None else check_embeddings(call.ref_emb, "ref_emb").to(embeddings.dtype)
        for name, labels, own in (("labels", call.labels, embeddings), ("ref_labels", call.ref_labels, reference)):
            if isinstance(labels, Grades):
                raise InputError(f"{name} that are Grades are of one rank's pairs, and there are pairs of two ranks")
            if labels is not None and (own is None or len(labels) != len(own)):
                raise InputError(f"{name} must be one for each embedding; got {len(labels)}")
        selection = as_selection(
            call.indices_tuple, len(embeddings), len(embeddings if reference is None else reference)
        )
        indices = () if selection is None else selection.indices()
    except InputError as found:
        # Told to the others first: a rank that raised alone would leave them waiting.
        error, embeddings, reference, indices = found, torch.zeros(0, 0), None, ()
    told = _told(call, embeddings, reference, indices, fails=error is not None)
    if error is not None:
        raise error
    _check(told)
    rows, references = [line[1] for line in told], [line[2] for line in told]
    whole = gathered(embeddings, rows)
    is_self = call.ref_emb is call.embeddings  # the batch itself under another name still is the batch
    return Call(
        whole,
        _gathered_labels(call.labels, embeddings, rows),
        _shifted(indices, told, rows, rows if reference is None else references),
        None if reference is None else whole if is_self else gathered(reference, references),
        _gathered_labels(call.ref_labels, embeddings, references),
    )


def _gathered_labels(labels: Labels | None, embeddings: Tensor, sizes: Sequence[int]) -> Labels | None:
    if isinstance(labels, RuledLabels):
        columns = labels.to(embeddings.device).columns
        # Ranks send each other one dtype, whatever their columns came in.
        columns = columns.to(embeddings.dtype) if columns.is_floating_point() else columns
        return RuledLabels(labels.rule, gathered(columns, sizes))
    if not isinstance(labels, Tensor):
        return None
    return gathered(labels.to(embeddings.device), sizes)


def gathered(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """The tensors (size, …) of all ranks as one; its gradients come back from all of them, added."""
    found: Tensor = _Gathered.apply(tensor, tuple(sizes))
    return found


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
        rank = dist.get_rank()
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        return rows_of_all(tensor, sizes)

    @staticmethod
    def backward(ctx: Any, by_all: Tensor) -> tuple[Tensor, None]:
        total = by_all.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.own], None


def _told(
    call: Call, embeddings: Tensor, reference: Tensor | None, indices: Sequence[Tensor], *, fails: bool
) -> list[list[int]]:
    """Of each rank: whether it fails, its sizes, those of its indices, and what all have to agree on."""
    own = [
        int(fails),
        len(embeddings),
        0 if reference is None else len(reference),
        len(indices[0]) if indices else 0,
        len(indices[-1]) if indices else 0,
        embeddings.shape[1],
        embeddings.dtype.itemsize,
        _sort(call.labels),
        _RULES.index(call.labels.rule) if isinstance(call.labels, RuledLabels) else -1,
        -1 if reference is None else -2 if call.ref_emb is call.embeddings else reference.shape[1],
        _sort(call.ref_labels),
        len(indices),
    ]
    line = torch.tensor(own, device=call.embeddings.device if isinstance(call.embeddings, Tensor) else None)
    lines = [torch.empty_like(line) for _ in range(world_size())]
    dist.all_gather(lines, line)
    found: list[list[int]] = torch.stack(lines).tolist()
    return found


def _sort(labels: Labels | None) -> int:
    """A number for what labels are: none, class ids, or rows of so many."""
    columns = labels.columns if isinstance(labels, RuledLabels) else labels
    return -1 if not isinstance(columns, Tensor) else 0 if columns.ndim == 1 else columns.shape[-1]


def _check(told: list[list[int]]) -> None:
    if failed := [rank for rank, line in enumerate(told) if line[0]]:
        raise InputError(f"rank {failed[0]} was called with what it cannot use; its own error says what")
    for what, found in zip(_ALIKE, zip(*(line[5:] for line in told), strict=True), strict=True):
        if len(set(found)) > 1:
            raise InputError(f"the ranks differ in {what}: give it alike on every rank")


def _shifted(
    indices: Sequence[Tensor], told: list[list[int]], rows: Sequence[int], references: Sequence[int]
) -> tuple[Tensor, ...] | None:
    """The indices of all ranks, counted in the batch of all."""
    if not indices:
        return None
    rank = dist.get_rank()
    anchors, others = sum(rows[:rank]), sum(references[:rank])
    lengths = [[line[3] for line in told]] * 2 + [[line[4] for line in told]] * (len(indices) - 2)
    is_anchor = [position == 0 or (len(indices) == 4 and position == 2) for position in range(len(indices))]
    return tuple(
        gathered(index + (anchors if anchor else others), sizes)
        for index, anchor, sizes in zip(indices, is_anchor, lengths, strict=True)
    )
