"""The base of losses around another with class weights, to whose value a property of those weights is added."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn import ClassLoss
from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.terms import MaterialTerms, Terms

__all__ = ["Regularized"]


class Regularized(ClassLoss):
    """Another loss, and a multiple of what a subclass says of its class weights in :meth:`costs`.

    Parameters
    ----------
    loss : nn.Module
        A loss with ``weight`` (num_classes, embedding_size): a margin softmax, or one of proxies.
    factor : float
        [0..inf] What the costs are multiplied with.
    reducer : nn.Module, optional
        Reduction of the loss's terms and of the costs, which are added; that of ``loss`` unless given.

    Raises
    ------
    ArgumentError
        ``loss`` has no class weights, or ``factor`` is negative.
    """

    def __init__(self, loss: nn.Module, factor: float, *, reducer: nn.Module | None = None) -> None:
        weight = getattr(loss, "weight", None)
        if (
            not isinstance(loss, ClassLoss)
            or not isinstance(weight, Tensor)
            or weight.shape[:-1] != (loss.num_classes,)
        ):
            raise ArgumentError(
                f"{type(self).__name__} looks at class weights: a parameter weight (num_classes, embedding_size), as "
                f"losses of margin softmax and of proxies have it; {type(loss).__name__} has none"
            )
        super().__init__(loss.num_classes, loss.embedding_size, reducer=loss.reducer if reducer is None else reducer)
        self.loss = loss
        self.factor = non_negative("factor", factor)

    def _weight(self) -> Tensor:
        if getattr(self.loss, "shard", None) is not None:
            raise InputError(
                f"{type(self).__name__} looks at all class weights, and those of {type(self.loss).__name__} are sharded"
            )
        weight = self.loss.weight
        assert isinstance(weight, Tensor)
        return weight

    @abstractmethod
    def costs(self, weight: Tensor) -> Tensor:
        """What each class's weight vector costs, (num_classes,), of all of them (num_classes, d)."""

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        labels, weights = self.checked(batch)
        found = self.loss.terms(batch)
        named = {"loss": found} if isinstance(found, Terms) else dict(found)
        # A batch of which nothing was selected says nothing, of the weights neither.
        said = len(labels) > 0 if weights is None else (weights > 0).any()
        (weight,) = self.common(self._weight())
        classes = torch.arange(self.num_classes, device=weight.device)
        costs = self.factor * self.costs(weight) * said
        regularizer = MaterialTerms("element", costs, (classes,), num_anchors=self.num_classes, labels=classes)
        return named | {"regularizer": regularizer}

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.loss.losses(embeddings, labels)

    def scores(self, embeddings: Tensor) -> Tensor:
        return self.loss.scores(embeddings)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, factor={self.factor}"
