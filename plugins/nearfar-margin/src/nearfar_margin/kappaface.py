"""KappaFace: Oinar et al. 2022 (2201.07394)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import non_negative, within
from nearfar_margin.angles import cos_plus
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.shard import local

__all__ = ["KappaFace"]


@dataclass(frozen=True, slots=True)
class Margins(Rows):
    """With the margin of each sample in radians, (n,)."""

    margin: Tensor


class KappaFace(MarginSoftmax):
    r"""ArcFace with a margin for each class: larger where the class is scattered, and where it has few samples.

    .. math::

        L_i = -\log \frac{e^{s \cos(\theta_{i y_i} + \alpha_{y_i} m)}}
                         {e^{s \cos(\theta_{i y_i} + \alpha_{y_i} m)} + \sum_{j \ne y_i} e^{s \cos\theta_{ij}}},
        \qquad
        \alpha_c = \gamma \left(1 - \operatorname{sigmoid}(T z_c)\right)
                 + (1 - \gamma) \tfrac{1}{2} \left(\cos\frac{\pi n_c}{1.05\, n_\text{max}} + 1\right)

    where z_c is the concentration κ_c = r (d − r²)/(1 − r²) of the class less the mean of all classes, over their
    standard deviation, r the length of the mean of the class's unit embeddings in d dimensions, and n_c their number,
    all since the margins were last renewed. Until they are for the first time every α is 1.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings, d.
    renewal : int
        [1..inf] Calls in training mode from one renewal of the margins to the next: those of an epoch in the paper.
    margin : float
        [radians, 0..pi] The greatest margin m; 0.62 as in the authors' code.
    temperature : float
        [0..inf] How sharply the concentration counts, T; 0.55 as in the authors' code.
    balance : float
        [0..1] Share of the concentration against the number of samples, γ; 0.7 as in the authors' code.
    scale : float
        (0..inf] What the logits are multiplied with, s; 64 as in the paper.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. ``alpha`` (num_classes,), ``sums`` (num_classes, embedding_size), ``counts``
    (num_classes,) and ``calls`` are buffers; in evaluation mode they are unchanged. Where classes are spread over ranks
    ``sums`` are, too. A class without a sample since the last renewal keeps its α. A reference set is not taken; what a
    miner selects weighs the elements, and does not enter the statistics.

    Raises
    ------
    ArgumentError
        ``renewal`` is no whole number of at least 1, or a number is out of its range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Oinar, Le, Woo (2022). KappaFace: Adaptive Additive Angular Margin Loss for Deep Face Recognition.
    arXiv:2201.07394.
    """

    class_buffers = ("sums",)

    alpha: Tensor
    sums: Tensor
    counts: Tensor
    calls: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        renewal: int,
        margin: float = 0.62,
        temperature: float = 0.55,
        balance: float = 0.7,
        scale: float = 64.0,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        if not isinstance(renewal, int) or isinstance(renewal, bool) or renewal < 1:
            raise ArgumentError(f"KappaFace: renewal must be a whole number of at least 1; got {renewal!r}")
        self.renewal = renewal
        self.margin = within("margin", margin, 0.0, math.pi, "radians")
        self.temperature = non_negative("temperature", temperature)
        self.balance = within("balance", balance, 0.0, 1.0)
        self.register_buffer("alpha", torch.ones(num_classes))
        self.register_buffer("sums", torch.zeros(num_classes, embedding_size))
        self.register_buffer("counts", torch.zeros(num_classes))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        # What ``calls`` says, here so that a GPU need not be asked in each call.
        self._calls = 0

    def prepare(self, rows: Rows) -> Rows:
        alpha = self.alpha[rows.labels].to(rows.t)
        if self.training:
            self._gather(rows.embeddings.detach(), rows.labels)
        return Margins(rows.t, rows.norm, rows.labels, margin=self.margin * alpha)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        assert isinstance(rows, Margins)
        return cos_plus(t, rows.margin)

    @torch.no_grad()
    def _gather(self, x: Tensor, labels: Tensor) -> None:
        self._add(x, labels)
        self.counts.index_add_(0, labels, self.counts.new_ones(len(labels)))
        self.calls += 1
        self._calls += 1
        if self._calls % self.renewal == 0:
            self._renew()

    def _add(self, x: Tensor, labels: Tensor) -> None:
        """The embeddings of each class to its sum, of the classes of this rank."""
        if self.shard is None:
            self.sums.index_add_(0, labels, x.to(self.sums))
        elif len(sums := local(self.sums)):
            labels = labels - self.shard.start
            theirs = (labels < 0) | (labels >= len(sums))
            sums.index_add_(0, labels.masked_fill(theirs, 0), x.to(sums).masked_fill(theirs[:, None], 0))

    def _lengths(self) -> Tensor:
        """Of the sums, (num_classes,)."""
        lengths = torch.linalg.vector_norm(local(self.sums), dim=1)
        return lengths if self.shard is None else self.shard.every_class(lengths)

    def _renew(self) -> None:
        """New margins of what was gathered, and nothing gathered."""
        seen = self.counts > 0
        r = self._lengths() / self.counts.clamp_min(1)
        spread = 1 - r**2
        kappa = r * (self.embedding_size - r**2) / spread.masked_fill(spread < 1e-6, 0)
        # Samples all in one place have no finite κ: they count as the most concentrated class that has one.
        greatest = kappa.masked_fill(~(seen & kappa.isfinite()), 0).max()
        kappa = kappa.nan_to_num(posinf=math.inf).minimum(greatest)
        z = _standardized(kappa, seen)
        concentrated = 1 - torch.sigmoid(self.temperature * z)
        rare = (torch.cos(math.pi * self.counts / (1.05 * self.counts.max().clamp_min(1))) + 1) / 2
        found = self.balance * concentrated + (1 - self.balance) * rare
        self.alpha.copy_(torch.where(seen, found, self.alpha))
        local(self.sums).zero_()
        self.counts.zero_()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._calls = int(self.calls)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, renewal={self.renewal}, margin={self.margin}, temperature={self.temperature}, "
            f"balance={self.balance}"
        )


def _standardized(values: Tensor, mask: Tensor) -> Tensor:
    """Less the mean and over the standard deviation of those of ``mask``; 0 where these do not differ."""
    count = mask.sum()
    off = (values - (values * mask).sum() / count.clamp_min(1)) * mask
    deviation = (off.square().sum() / (count - 1).clamp_min(1)).sqrt()
    return torch.where(deviation > 0, off / deviation.masked_fill(deviation == 0, 1), torch.zeros_like(off))
