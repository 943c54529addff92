"""Ring loss: Zheng et al., CVPR 2018 (1803.00130)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.nn import EmbeddingLoss
from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.terms import Terms, element_terms

__all__ = ["Ring"]


class Ring(EmbeddingLoss):
    r"""Half the squared difference of each embedding's length and a learned radius.

    .. math:: L_i = \tfrac12 (\lVert x_i \rVert - R)^2

    Parameters
    ----------
    radius : float, optional
        [0..inf] Where the radius R starts; unless given, the mean length of the embeddings of the first batch in
        training, on all ranks where ``torch.distributed`` is initialised, as in the authors' code.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    Embeddings (n, d); labels are not looked at and may be left out. ``radius`` is a parameter for the optimiser.
    It looks at lengths only, so it is added to a softmax loss, the paper's with a weight of 0.01. A miner weighs the
    elements. A zero vector has no direction to grow in, and no gradient.

    Raises
    ------
    ArgumentError
        ``radius`` is negative.
    InputError
        There is a reference set, or a shape does not fit.

    References
    ----------
    Zheng, Pal, Savvides (2018). Ring Loss: Convex Feature Normalization for Face Recognition. CVPR.
    arXiv:1803.00130, equation 3.
    """

    started: Tensor

    def __init__(self, radius: float | None = None, *, reducer: nn.Module | None = None) -> None:
        super().__init__(reducer=reducer)
        self.radius = nn.Parameter(torch.tensor(1.0 if radius is None else non_negative("radius", radius)))
        self.register_buffer("started", torch.tensor(radius is not None))
        #: Known without asking a GPU.
        self._has_started = radius is not None

    def default_distance(self) -> None:
        return None

    def terms(self, batch: Batch) -> Terms:
        if not batch.is_self:
            raise InputError("Ring looks at the lengths of embeddings, so it takes no ref_emb")
        x = batch.embeddings
        lengths = torch.linalg.vector_norm(x, dim=1)
        if self.training and not self._has_started:
            self._start(lengths.detach())
        values = (lengths - self.radius.to(lengths)).square() / 2
        weights = None if batch.selection is None else batch.selection.weights(len(values)).to(values)
        return element_terms(values, weights=weights, labels=batch.labels)

    @torch.no_grad()
    def _start(self, lengths: Tensor) -> None:
        """At the mean length of this batch, of all ranks; nothing where it has started, or a length is not finite."""
        total = torch.stack([lengths.sum(), lengths.new_tensor(len(lengths))])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
            # Or each step of each rank would wait for the others.
            self._has_started = bool(self.started)
        mean = total[0] / total[1]
        begins = ~self.started & mean.isfinite()
        self.radius.copy_(torch.where(begins, mean.to(self.radius), self.radius))
        self.started |= begins
