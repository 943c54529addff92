"""A loss of the batches of all ranks together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nearfar.nn import Selection
from nearfar.nn.labels import Labels
from nearfar_pair.combinators.around import Around
from nearfar_pair.combinators.ranks import Call, collected, world_size

__all__ = ["Gather"]


class Gather(Around):
    r"""Another loss, of the embeddings of all ranks as one batch.

    .. math:: L = \ell(X_0 \cup X_1 \cup \cdots \cup X_{W - 1})

    Parameters
    ----------
    loss : nn.Module
        A loss on embeddings. Each rank computes it of everything, so that any loss, reducer and miner works as it does
        in one process.
    miner : nn.Module, optional
        Selects for the loss, from the embeddings of all ranks.

    Raises
    ------
    ArgumentError
        Both the loss and this have a miner.
    InputError
        When called: ranks differ in embedding size, dtype or in what they were given besides; or labels are ``Grades``,
        which say nothing of pairs of two ranks.

    Notes
    -----
    The value is that of the whole batch, on every rank, in the order of the ranks, which may have batches of different
    sizes, or none. The gradient of a rank's embeddings is that of the *sum* of the values over the ranks, world size
    times that of the value: ``DistributedDataParallel`` divides by the world size when it averages the gradients of a
    model, which are then those of one process with the whole batch. So are those of what the loss learns, wrapped or
    not. An optimiser that adds gradients up over ranks would have to divide by the world size.

    An ``indices_tuple`` counts in a rank's own batch; those of all ranks are put together. Every rank has to call this,
    and to go back through it. Without ``torch.distributed``, with one process, or where ``whole_batch`` says that each
    rank is given the batch of all, it is the loss itself.
    """

    #: As of nearfar's losses.
    whole_batch = False

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels | None = None,
        indices_tuple: Selection | Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        """The loss of the embeddings (n, d) of this rank and those of all others."""
        call = Call(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if world_size() > 1 and not self.whole_batch:
            call = collected(call)
        return self.value(self.loss, *call)
