"""A memory of the embeddings of earlier batches.

Wang, Zhang, Huang, Scott (2020): Cross-Batch Memory for Embedding Learning. arXiv:1912.06798.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn import Selection, Stepping
from nearfar.nn.arguments import non_negative
from nearfar.nn.labels import Grades, Labels, RuledLabels
from nearfar.nn.precision import raised
from nearfar_pair.combinators.around import Around

__all__ = ["CrossBatchMemory"]


class CrossBatchMemory(Around, Stepping):
    r"""Another loss, of the batch with itself and of the batch with the embeddings of earlier batches.

    .. math:: L = \ell(X, X) + w\, \ell(X, M)

    Parameters
    ----------
    loss : nn.Module
        A loss on embeddings that takes a reference set: the memory M is its.
    size : int
        [1..inf] How many embeddings the memory holds; the oldest make room.
    warm_up : int
        [0..inf] For so many steps the memory is filled and not yet compared with: embeddings of a network that still
        moves fast are soon wrong. The authors' code waits for 2000 steps, in its sample configuration for 1000.
    weight : float
        [0..inf] w; 1 as the authors' code has it.
    miner : nn.Module, optional
        Selects for the loss: from the batch, and from the memory.

    Raises
    ------
    ArgumentError
        A number is out of its range, or both the loss and this have a miner.
    InputError
        When called: without labels, with labels of another kind than the memory holds, with ``Grades``, which are of
        the pairs of one batch, or with a reference set, which the memory is.

    Notes
    -----
    A batch is compared with the memory before it is put into it, so that no embedding is compared with itself. What is
    in the memory has no gradient. An ``indices_tuple`` is about the batch: it selects in ℓ(X, X) alone, and the memory
    is compared with by labels.

    Of labels with a rule the columns are remembered, and matched by the rule of the batch they are compared with.

    Every call in training mode puts its batch in, accumulated ones too; embeddings that are not finite are left out, as
    they would stay for many steps. Steps are those of an optimiser where it follows one, else calls. The memory, its
    position and the number of steps are buffers; a state of another fill or embedding size loads as it was saved.

    References
    ----------
    Wang et al. (2020), arXiv:1912.06798, algorithm 1. Deviations: the paper compares with the batch by way of the
    memory, so that only one end of a pair has a gradient; here the loss of the batch is a term of its own, as in the
    authors' code. There the batch stands in the memory too when it is compared with it, and before the warm-up is over
    nothing is put in.
    """

    memory: Tensor
    memory_labels: Tensor
    position: Tensor
    steps: Tensor

    def __init__(
        self,
        loss: nn.Module,
        size: int,
        warm_up: int = 0,
        weight: float = 1.0,
        *,
        miner: nn.Module | None = None,
    ) -> None:
        super().__init__(loss, miner=miner)
        for name, value, least in (("size", size, 1), ("warm_up", warm_up, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ArgumentError(
                    f"CrossBatchMemory: {name} must be a whole number of at least {least}; got {value!r}"
                )
        self.size, self.warm_up = size, warm_up
        self.weight = non_negative("weight", weight)
        self._warm = False
        self.register_buffer("memory", torch.zeros(0, 0))
        self.register_buffer("memory_labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels | None = None,
        indices_tuple: Selection | Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        """The loss of a batch (n, d) with itself and with the memory; in training mode the batch goes into that."""
        if ref_emb is not None or ref_labels is not None:
            raise InputError("CrossBatchMemory compares with its memory, so it takes no ref_emb")
        if labels is None:
            raise InputError("CrossBatchMemory needs labels: by them a batch is compared with later ones")
        if isinstance(labels, Grades):
            raise InputError(
                "CrossBatchMemory keeps a label of each embedding, and Grades are of the pairs of one batch; give it "
                "labels by a rule, such as RuledLabels('jaccard', …)"
            )
        value = self.value(self.loss, embeddings, labels, indices_tuple)
        columns = labels.columns if isinstance(labels, RuledLabels) else labels
        self._check_memory(embeddings, columns)
        if len(self.memory) and self._is_warm():
            memory = self.memory.to(embeddings.device, raised(embeddings).dtype)
            remembered = self.memory_labels.to(embeddings.device)
            of_memory = RuledLabels(labels.rule, remembered) if isinstance(labels, RuledLabels) else remembered
            value = value + self.weight * self.value(self.loss, embeddings, labels, None, memory, of_memory)
        if self.training:
            self._put(raised(embeddings.detach()), columns.detach())
        self.called()
        return value

    def _is_warm(self) -> bool:
        """Whether the warm-up is over, for which a GPU is waited for while it lasts and never again."""
        self._warm = self._warm or not self.warm_up or int(self.steps) >= self.warm_up
        return self._warm

    def _check_memory(self, embeddings: Tensor, labels: Tensor) -> None:
        """Raise where a batch is not like those that the memory is of."""
        if not len(self.memory):
            return
        if self.memory.shape[1] != embeddings.shape[1]:
            raise InputError(
                f"the memory holds embeddings of size {self.memory.shape[1]}; got {tuple(embeddings.shape)}"
            )
        held = self.memory_labels
        if held.shape[1:] != labels.shape[1:] or _sort(held.dtype) != _sort(labels.dtype):
            raise InputError(
                f"the memory holds labels {held.dtype} (…{''.join(f', {size}' for size in held.shape[1:])}), and the "
                f"batch has {labels.dtype} {tuple(labels.shape)}; clear it by making the criterion anew"
            )

    def step(self) -> None:
        self.steps += 1

    # What is kept is compared with, and differentiated, in later calls, which need not be in inference mode.
    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def _put(self, embeddings: Tensor, labels: Tensor) -> None:
        finite = embeddings.isfinite().all(1)
        new, new_labels = embeddings[finite][-self.size :], labels.to(embeddings.device)[finite][-self.size :]
        if not len(self.memory):
            self.memory, self.memory_labels = new[:0].clone(), new_labels[:0].clone()
        new, new_labels = new.to(self.memory.dtype), new_labels.to(self.memory_labels.dtype)
        # How full the memory is the host knows; where it goes on is told on the device, so that nothing waits for it.
        room = self.size - len(self.memory)
        if room:
            self.memory = torch.cat((self.memory, new[:room]))
            self.memory_labels = torch.cat((self.memory_labels, new_labels[:room]))
        rest, rest_labels = new[room:], new_labels[room:]
        if len(rest):
            first = self.position if not room else torch.zeros_like(self.position)
            places = (first + torch.arange(len(rest), device=rest.device)) % self.size
            # Not in place: the loss that was just computed holds the memory for its backward pass.
            self.memory = self.memory.index_copy(0, places, rest)
            self.memory_labels = self.memory_labels.index_copy(0, places, rest_labels)
        self.position = (self.position + len(new)) % self.size

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self._warm = False  # a state may be of an earlier step
        for name in ("memory", "memory_labels"):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor):
                if len(saved) > self.size:
                    args[-1].append(f"{prefix}{name} holds {len(saved)} embeddings, and there is room for {self.size}")
                setattr(self, name, getattr(self, name).new_empty(saved.shape, dtype=saved.dtype))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._unroll()

    @torch.no_grad()
    def _unroll(self) -> None:
        """Put the oldest first in a memory that was full at a smaller size, so that it goes first here too."""
        held = len(self.memory)
        if held and held < self.size and not self.position.is_meta and int(self.position) != held:
            self.memory = self.memory.roll(-int(self.position), 0)
            self.memory_labels = self.memory_labels.roll(-int(self.position), 0)
            self.position.fill_(held)

    def extra_repr(self) -> str:
        return f"size={self.size}, warm_up={self.warm_up}, weight={self.weight}"


def _sort(dtype: torch.dtype) -> str:
    """What labels of a dtype are: many-hot, points, or ids."""
    return "hot" if dtype == torch.bool else "points" if dtype.is_floating_point else "ids"
