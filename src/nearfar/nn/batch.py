"""One call of an embedding loss: what it was given, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn.precision import raised

if TYPE_CHECKING:
    from nearfar.nn.selection import Selection

__all__ = ["Batch", "check_embeddings", "check_labels", "check_range"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Embeddings, their labels, the set they are compared with, and what a miner selected.

    Attributes
    ----------
    embeddings
        (n, d), float32 or float64.
    labels
        (n,) int64 class ids, or None when a selection stands for them.
    reference, reference_labels
        (m, d) and (m,): the set to compare with; the batch itself when no other was given.
    selection
        What the miner chose, or None for everything.
    is_self
        Whether the reference *is* the batch, so that element i is not compared with itself.
    given
        The embeddings and references as they were given, before half precision was raised: by them two batches
        are known to be one.
    """

    embeddings: Tensor
    labels: Tensor | None
    reference: Tensor
    reference_labels: Tensor | None
    selection: Selection | None
    is_self: bool
    given: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls,
        embeddings: Tensor,
        labels: Tensor | None = None,
        selection: Selection | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Batch:
        """Check what a loss or miner was called with; half precision is raised to float32.

        Raises
        ------
        InputError
            A shape, dtype or length does not fit; the message has what was found.
        """
        given, labels_given = embeddings, labels
        embeddings = check_embeddings(embeddings, "embeddings")
        if labels is not None:
            labels = check_labels(labels, embeddings, "labels")
        elif selection is None:
            raise InputError("labels are needed where no indices_tuple says which embeddings belong together")
        # The batch itself under another name is still the batch: its elements are not their own positives.
        if ref_emb is None or ref_emb is given:
            if ref_labels is not None and ref_labels is not labels_given:
                if ref_emb is None:
                    raise InputError("ref_labels were given without ref_emb")
                if labels is None or not torch.equal(check_labels(ref_labels, embeddings, "ref_labels"), labels):
                    raise InputError("ref_emb is the batch itself, but ref_labels are not its labels")
            return cls(embeddings, labels, embeddings, labels, selection, True, (given, given))
        reference = check_embeddings(ref_emb, "ref_emb").to(embeddings.dtype)
        if reference.shape[1] != embeddings.shape[1]:
            raise InputError(
                f"embeddings {tuple(embeddings.shape)} and ref_emb {tuple(reference.shape)} differ in embedding size"
            )
        if ref_labels is not None:
            ref_labels = check_labels(ref_labels, reference, "ref_labels")
        elif labels is not None and selection is None:
            raise InputError("ref_emb was given without ref_labels")
        return cls(embeddings, labels, reference, ref_labels, selection, False, (given, ref_emb))

    def positive_mask(self) -> Tensor:
        """(n, m) boolean: which references are positives of which embedding; never an element of itself."""
        mask = self._same_label()
        if self.is_self:
            mask.fill_diagonal_(False)
        return mask

    def negative_mask(self) -> Tensor:
        """(n, m) boolean: which references are negatives of which embedding."""
        return ~self._same_label()

    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(anchor, positive, anchor, negative)``: what was selected, or every pair where nothing was."""
        if self.selection is not None:
            return self.selection.pairs()
        a1, p = torch.where(self.positive_mask())
        a2, n = torch.where(self.negative_mask())
        return a1, p, a2, n

    def triplets(self) -> tuple[Tensor, Tensor, Tensor]:
        """``(anchor, positive, negative)``: what was selected, or every triplet where nothing was.

        All triplets come by anchor, then positive, then negative.
        """
        if self.selection is not None:
            return self.selection.triplets()
        anchors, positives = torch.where(self.positive_mask())
        pair, negatives = torch.where(self.negative_mask()[anchors])
        return anchors[pair], positives[pair], negatives

    def _same_label(self) -> Tensor:
        if self.labels is None or self.reference_labels is None:
            raise InputError("labels are needed where no indices_tuple says which embeddings belong together")
        return self.labels[:, None] == self.reference_labels


def check_embeddings(embeddings: Tensor, name: str) -> Tensor:
    """Return ``embeddings`` in at least float32, or raise :class:`InputError`."""
    if not isinstance(embeddings, Tensor):
        raise InputError(f"{name} must be a tensor (batch, dim); got {type(embeddings).__name__}")
    if embeddings.ndim != 2:
        raise InputError(f"{name} must be of shape (batch, dim); got {tuple(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise InputError(f"{name} must be of a floating dtype; got {embeddings.dtype}")
    return raised(embeddings)


def check_labels(labels: Tensor, embeddings: Tensor, name: str) -> Tensor:
    """Return ``labels`` as int64 on the device of ``embeddings``, or raise :class:`InputError`."""
    if not isinstance(labels, Tensor):
        raise InputError(f"{name} must be a tensor of class ids (batch,); got {type(labels).__name__}")
    if labels.ndim != 1 or len(labels) != len(embeddings):
        raise InputError(
            f"{name} must be of shape ({len(embeddings)},), one class id for each embedding; got {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"{name} must be class ids of an integer dtype; got {labels.dtype}")
    return labels.to(embeddings.device, torch.int64)


def check_range(index: Tensor, size: int, message: str) -> None:
    """Raise :class:`InputError` unless all of ``index`` lie in 0 … size − 1.

    ``message`` may hold ``{low}`` and ``{high}``, what was found. On a GPU, and compiled, the check is put in the
    stream instead of waiting for it, and ends the program there: an index kernel would take −1 for the last.
    """
    if not len(index):
        return
    is_compiled = torch.compiler.is_compiling()
    if index.device.type == "cpu" and not is_compiled:
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= size:
            raise InputError(message.format(low=low, high=high))
    elif index.device.type == "cuda" or is_compiled:
        torch._assert_async(((index >= 0) & (index < size)).all(), message)
