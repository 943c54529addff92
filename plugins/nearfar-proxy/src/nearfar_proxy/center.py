"""Center loss: Wen et al., ECCV 2016."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn import ClassLoss
from nearfar.nn.arguments import check_choice
from nearfar.nn.vectors import unit

__all__ = ["Center"]


class Center(ClassLoss):
    r"""Half the squared distance of each embedding to the running centre of its class.

    .. math::

        L_i = \tfrac12 \lVert x_i - c_{y_i} \rVert^2

    and after each batch in training, :math:`c_j \leftarrow c_j - \alpha\,\Delta c_j` with

    .. math::

        \Delta c_j = \frac{\sum_i [y_i = j]\,(c_j - x_i)}{1 + \sum_i [y_i = j]}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, each with one centre.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    alpha : float
        [0..1] How far centres move, α; 0.5 as in the paper. For ``update="paper"`` only.
    update : {"paper", "gradient"}
        How centres move. ``paper``: by the rule above; they are a buffer. ``gradient``: they are a parameter
        for the optimiser, as in several ports, whose learning rate then stands for α but without the 1 + n.
        Both go by the name of center loss.
    normalize : bool
        Whether embeddings are scaled to length one first. As they are, as in the paper and by default, the loss can
        be made small by making all embeddings short: beside a loss that looks at directions only, which does not
        mind, say True.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``centers`` (num_classes, embedding_size) start at zero. On its own
    the loss is least when every embedding is the same, so it is added to another, the paper's to a softmax times
    0.003.

    With the reducer ``mean`` it is the paper's λ/2m Σ of its code, with ``sum`` the ½ Σ of its formula. Three rules
    go by the name of α. The paper's is here. ``update="gradient"`` with SGD of a learning rate α is that of
    several ports: it lacks the 1 + n, and a mean reducer divides it by the size of the batch. The third, c ← α c +
    (1 − α) x, sample by sample, has α the other way round: the paper's α of 0.5 for a class of one sample is its
    0.75.

    The update takes place at the end of a call in training mode: the loss of a batch is that to the centres
    before it, and every call moves them, whether or not a backward pass follows. A miner weighs the losses but
    has no say in the update. An embedding that is not finite moves no centre. The update is deterministic on
    every device. Under data parallelism each process
    moves its own centres by its own part of the batch, and DistributedDataParallel then keeps those of rank 0.

    Raises
    ------
    ArgumentError
        ``update`` is neither of the two, or ``alpha`` is out of range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Wen, Zhang, Li, Qiao (2016). A Discriminative Feature Learning Approach for Deep Face Recognition. ECCV,
    equations 2 to 4.
    """

    centers: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        alpha: float = 0.5,
        update: Literal["paper", "gradient"] = "paper",
        normalize: bool = False,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.update = check_choice(self, "update", update, ("paper", "gradient"))
        if not 0 <= alpha <= 1:
            raise ArgumentError(f"Center: alpha must be in [0, 1]; got {alpha}")
        self.alpha = alpha
        self.normalize = normalize
        centers = torch.zeros(num_classes, embedding_size)
        if update == "gradient":
            self.centers = nn.Parameter(centers)
        else:
            self.register_buffer("centers", centers)

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, centers = self._both(embeddings)
        offset = x - centers[labels]
        if self.update == "paper" and self.training:
            self._move(offset.detach(), labels)
        return offset.square().sum(1) / 2

    def scores(self, embeddings: Tensor) -> Tensor:
        x, centers = self._both(embeddings)
        return x @ centers.T - centers.square().sum(1) / 2

    def _both(self, embeddings: Tensor) -> list[Tensor]:
        x, centers = self.common(embeddings, self.centers)
        return [unit(x)[0] if self.normalize else x, centers]

    @torch.no_grad()
    def _move(self, offset: Tensor, labels: Tensor) -> None:
        """c − α Δc, of ``offset`` (n, d) = x − c: without an index kernel that adds in no fixed order."""
        if not len(labels):
            return
        alive = offset.isfinite().all(1)
        same = ((labels[:, None] == labels) & alive).to(offset.dtype)
        step = self.alpha * (same @ offset.masked_fill(~alive[:, None], 0)) / (1 + same.sum(1, keepdim=True))
        # Samples of a class must write the same bits: each takes the step of the first among them.
        first = (labels[:, None] == labels).int().argmax(1)
        self.centers[labels] += step[first].to(self.centers.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}, update={self.update!r}, normalize={self.normalize}"
