"""Instance loss.

Zheng, Zheng, Garrett, Yang, Xu, Shen (2020): Dual-Path Convolutional Image-Text Embeddings with Instance Loss.
ACM TOMM, arXiv:1711.05535.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.nn.batch import Batch
from nearfar.nn.class_losses import ClassLoss, cross_entropy
from nearfar.nn.terms import Terms, element_terms

__all__ = ["Instance"]


class Instance(ClassLoss):
    r"""Every instance a class of its own, told by one classifier in both views or modalities.

    .. math::
        L = \frac{1}{n} \sum_i -\log \frac{e^{w_{y_i}^\top x_i}}{\sum_c e^{w_c^\top x_i}}
          + \frac{1}{m} \sum_j -\log \frac{e^{w_{y_j}^\top r_j}}{\sum_c e^{w_c^\top r_j}}

    x are the embeddings of one modality, r those of the other, given as the reference set. The weight being shared,
    what an image and its text have in common is what tells them from the rest.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of instances: of images with their texts.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    reducer : nn.Module, optional
        Reduces the sub-losses ``embeddings`` and, where there is a reference set, ``references`` apart, and their
        values are added; by default the mean of each.

    Raises
    ------
    InputError
        A label is outside [0, num_classes) (checked on the CPU), a shape does not fit, or there is a selection.

    Notes
    -----
    Labels say which instance an embedding is of. Terms are ``element``. ``weight`` (num_classes, embedding_size)
    starts normal with a standard deviation of 0.001, as in the authors' code. Embeddings are taken as they are, and
    there is no bias. Without a reference set it is ``softmax(bias=False)``.

    Deviation: the paper adds a ranking loss on both modalities and drops three quarters of the features out before the
    classifier; both are the caller's.

    References
    ----------
    Zheng et al. (2020), arXiv:1711.05535, section 4.
    """

    def __init__(self, num_classes: int, embedding_size: int, *, reducer: nn.Module | None = None) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.weight = nn.Parameter(0.001 * torch.randn(num_classes, embedding_size))

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        if batch.selection is not None:
            raise InputError("Instance tells every sample from all instances, so it takes no indices_tuple")
        labels, reference_labels = batch.class_ids("Instance")
        sides = {"embeddings": (batch.embeddings, labels)}
        if not batch.is_self:
            sides["references"] = batch.reference, reference_labels
        for x, y in sides.values():
            self._check_size(x)
            self._check_range(y)
        return {name: element_terms(self.losses(x, y), labels=y) for name, (x, y) in sides.items()}

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.scores(embeddings), labels)

    def scores(self, embeddings: Tensor) -> Tensor:
        return F.linear(*self.common(embeddings, self.weight))
