"""Center loss: Wen et al., ECCV 2016."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn import ClassLoss, Stepping
from nearfar.nn.arguments import check_choice
from nearfar.nn.vectors import unit
from nearfar_proxy.running import Seen, every_rank, sums_by_label
from nearfar_proxy.starts import CenterStart, centers

__all__ = ["Center"]


class Center(ClassLoss, Stepping):
    r"""Half the squared distance of each embedding to the running centre of its class.

    .. math::

        L_i = \tfrac12 \lVert x_i - c_{y_i} \rVert^2

    and once a step in training, :math:`c_j \leftarrow c_j - \alpha\,\Delta c_j` with

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
    init : {"zero", "normal", "orthogonal"}
        Where centres start: at zero; normal, of variance 1; or in directions at right angles, as far as there is room
        for them, of the length that normal ones have. The paper does not say.
        :func:`nearfar_proxy.starts.initialize` has them start at the means of a first pass.
    normalize : bool
        Whether embeddings are scaled to length one first. As they are, as in the paper and by default, the loss can
        be made small by making all embeddings short: beside a loss that looks at directions only, which does not
        mind, say True.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``centers`` are (num_classes, embedding_size). On its own the loss is
    least when every embedding is the same, so it is added to another, the paper's to a softmax times 0.003.

    With the reducer ``mean`` it is the paper's λ/2m Σ of its code, with ``sum`` the ½ Σ of its formula. Three rules
    go by the name of α. The paper's is here. ``update="gradient"`` with SGD of a learning rate α is that of
    several ports: it lacks the 1 + n, and a mean reducer divides it by the size of the batch. The third, c ← α c +
    (1 − α) x, sample by sample, has α the other way round: the paper's α of 0.5 for a class of one sample is its
    0.75.

    The loss of a batch is that to the centres before the update. This takes place at the end of each call in training
    mode, whether or not a backward pass follows; or, after ``criterion.follow(optimizer)``, with each step of that
    optimiser, by all that the calls since the last one have seen, as one batch: so under accumulated gradients. Where
    ``torch.distributed`` is initialised the sums run over the ranks, all of which must call and step alike: their
    centres stay the same; unless ``whole_batch`` says that each has seen the batch of all. A miner weighs the losses
    but has no say in the update. An embedding that is not finite moves no centre. The update is deterministic on every
    device.

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
        init: CenterStart = "zero",
        normalize: bool = False,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.update = check_choice(self, "update", update, ("paper", "gradient"))
        if not 0 <= alpha <= 1:
            raise ArgumentError(f"Center: alpha must be in [0, 1]; got {alpha}")
        self.alpha = alpha
        self.normalize = normalize
        start = centers(self, init, num_classes, embedding_size)
        if update == "gradient":
            self.centers = nn.Parameter(start)
        else:
            self.register_buffer("centers", start)
        #: What the calls since the last step saw.
        self._seen: list[Seen] = []

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, centers = self._both(embeddings)
        offset = x - centers[labels]
        if self.update == "paper" and self.training:
            self._seen.append((offset.detach(), labels))
            self.called()
        return offset.square().sum(1) / 2

    @torch.no_grad()
    def step(self) -> None:
        """Move the centres by what the calls since the last step have seen, on all ranks."""
        if self.update != "paper":
            return
        # One that saw nothing has its part in what the ranks tell each other.
        seen = self._seen or [(self.centers[:0], torch.zeros(0, dtype=torch.int64, device=self.centers.device))]
        self._seen = []
        together = torch.cat([x for x, _ in seen]), torch.cat([y for _, y in seen])
        offsets, labels = together if self.whole_batch else every_rank(together)
        if len(labels):
            self._move(offsets, labels)

    def scores(self, embeddings: Tensor) -> Tensor:
        x, centers = self._both(embeddings)
        return x @ centers.T - centers.square().sum(1) / 2

    def class_vectors(self) -> dict[str, Tensor]:
        return {"centers": self.centers.detach()}

    def _both(self, embeddings: Tensor) -> list[Tensor]:
        x, centers = self.common(embeddings, self.centers)
        return [unit(x)[0] if self.normalize else x, centers]

    def _move(self, offsets: Tensor, labels: Tensor) -> None:
        """c − α Δc, of ``offsets`` (n, d) = x − c."""
        sums, counts, which = sums_by_label(offsets, labels)
        self.centers[which] += (self.alpha * sums / (1 + counts)).to(self.centers.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}, update={self.update!r}, normalize={self.normalize}"
