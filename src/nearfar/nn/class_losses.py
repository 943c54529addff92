"""The base of losses that compare an embedding with the classes rather than with the rest of the batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.batch import Batch, check_embeddings, check_range
from nearfar.nn.distances import Distance
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.precision import full_precision
from nearfar.nn.terms import Terms, element_terms

__all__ = ["ClassLoss", "cross_entropy"]

#: No label is this one: torch's own default of −100 would silence a wrong label of −100 on a GPU.
NO_LABEL = torch.iinfo(torch.int64).min


class ClassLoss(EmbeddingLoss):
    """A loss with a vector for each class; a subclass writes :meth:`losses` and :meth:`scores`.

    It takes labels in [0, num_classes) and no reference set. What a miner selects becomes a weight for each
    element: how often it was selected, over the most that any was.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        for name, value in (("num_classes", num_classes), ("embedding_size", embedding_size)):
            if not value >= 1:  # not a number is none either
                raise ArgumentError(f"{type(self).__name__}: {name} must be at least 1; got {value}")
        self.num_classes = num_classes
        self.embedding_size = embedding_size

    def default_distance(self) -> Distance | None:
        return None

    @abstractmethod
    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of each sample, (n,), of embeddings (n, d) and labels (n,) that have been checked."""

    @abstractmethod
    def scores(self, embeddings: Tensor) -> Tensor:
        """The logits (n, num_classes) of embeddings that have been checked."""

    def logits(self, embeddings: Tensor) -> Tensor:
        """The logits of the classes: for predictions and their accuracy.

        Parameters
        ----------
        embeddings
            (n, embedding_size).

        Returns
        -------
        Tensor
            (n, num_classes), in float32 at least.
        """
        embeddings = check_embeddings(embeddings, "embeddings")
        self._check_size(embeddings)
        with full_precision(embeddings):
            return self.scores(embeddings)

    def class_vectors(self) -> dict[str, Tensor]:
        """What stands for the classes, by its name: each of the loss's own parameters with vectors for every class.

        A loss that keeps them in a buffer, or has a parameter of that shape that is none of classes, overrides it.

        Returns
        -------
        dict
            (num_classes, embedding_size), or with several vectors a class (num_classes, k, embedding_size); detached.
            Where they are spread over ranks every rank has to call it, and all get the whole.
        """
        found = {name: x.detach() for name, x in self.named_parameters(recurse=False) if self._of_classes(x)}
        # By its method, as importing the tensors of several ranks takes long.
        return {name: getattr(x, "full_tensor", lambda x=x: x)() for name, x in found.items()}

    def _of_classes(self, tensor: Tensor) -> bool:
        shape = tensor.shape
        return len(shape) in (2, 3) and (shape[0], shape[-1]) == (self.num_classes, self.embedding_size)

    def terms(self, batch: Batch) -> Terms | Mapping[str, Terms]:
        labels, weights = self.checked(batch)
        return element_terms(self.losses(batch.embeddings, labels), weights=weights, labels=labels)

    def checked(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The labels of a batch that this loss can take, (n,), and the samples' weights in 0..1, (n,), if mined.

        For a loss that overrides :meth:`terms`, as its elements are not the samples.

        Raises
        ------
        InputError
            There are no labels, or they are out of range; the embeddings are of another size; or there is a
            reference set.
        """
        name = type(self).__name__
        if not batch.is_self:
            raise InputError(f"{name} compares embeddings with its classes, so it takes no ref_emb")
        labels, _ = batch.class_ids(name)
        self._check_size(batch.embeddings)
        self._check_range(labels)
        if batch.selection is None:
            return labels, None
        return labels, batch.selection.weights(len(labels)).to(batch.embeddings)

    def common(self, embeddings: Tensor, *parameters: Tensor) -> list[Tensor]:
        """Embeddings and parameters in the wider of their dtypes; the parameters themselves stay as they are."""
        dtype = embeddings.dtype
        for parameter in parameters:
            dtype = torch.promote_types(dtype, parameter.dtype)
        return [tensor.to(dtype) for tensor in (embeddings, *parameters)]

    def _check_size(self, embeddings: Tensor) -> None:
        if embeddings.shape[1] != self.embedding_size:
            raise InputError(
                f"{type(self).__name__} has embedding_size={self.embedding_size}; got embeddings "
                f"{tuple(embeddings.shape)}"
            )

    def _check_range(self, labels: Tensor) -> None:
        expected = (
            f"{type(self).__name__} has num_classes={self.num_classes}, so labels run from 0 to {self.num_classes - 1}"
        )
        check_range(labels, self.num_classes, expected + "; got labels from {low} to {high}")

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, embedding_size={self.embedding_size}"


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The cross entropy of each row of ``logits``, ``smoothing`` / c on every class."""
    return F.cross_entropy(logits, labels, ignore_index=NO_LABEL, label_smoothing=smoothing, reduction="none")
