"""A loss between two sets of embeddings, from either side.

Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, Krueger, Sutskever (2021): Learning
Transferable Visual Models From Natural Language Supervision. arXiv:2103.00020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn import Selection
from nearfar.nn.labels import Grades, Labels
from nearfar_pair.combinators.around import Around

__all__ = ["Symmetric"]


class Symmetric(Around):
    r"""Another loss between two views or two towers, the mean of both directions.

    .. math:: L = \tfrac12 \left(\ell(A, B) + \ell(B, A)\right)

    Parameters
    ----------
    loss : nn.Module
        A loss on embeddings that takes a reference set. ``info_nce`` is CLIP's, ``siglip`` SigLIP's.
    miner : nn.Module, optional
        Selects for the loss, in each direction anew.

    Raises
    ------
    ArgumentError
        Both the loss and this have a miner.
    InputError
        When called: without ``ref_emb``, with labels of one side only, or with an ``indices_tuple``, which is about one
        direction.

    Notes
    -----
    Called ``loss(a, labels, ref_emb=b, ref_labels=labels)``. Without labels, row i of A belongs with row i of B and
    with no other. ``Grades`` are of A's rows and B's, and come without ``ref_labels``. Embeddings of one side are never
    compared with each other.

    References
    ----------
    Radford et al. (2021), arXiv:2103.00020, figure 3.
    """

    inputs = ("embeddings", "labels", "ref_emb", "ref_labels")

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels | None = None,
        indices_tuple: Selection | Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        """The mean of the loss of ``embeddings`` (n, d) with ``ref_emb`` (m, d) and of the reverse."""
        if ref_emb is None:
            raise InputError("Symmetric compares two sets of embeddings: give the second as ref_emb")
        if indices_tuple is not None:
            raise InputError("Symmetric takes no indices_tuple, which is about one direction; give it a miner")
        if isinstance(labels, Grades):
            if ref_labels is not None:
                raise InputError("Grades are about embeddings and ref_emb together: leave out ref_labels")
            return self._both(embeddings, labels, ref_emb, None)
        if (labels is None) != (ref_labels is None):
            raise InputError("Symmetric takes labels and ref_labels together, or neither")
        if labels is None:
            if len(embeddings) != len(ref_emb):
                sizes = f"{len(embeddings)} embeddings and {len(ref_emb)} ref_emb"
                raise InputError(f"without labels row i belongs with row i; got {sizes}")
            labels = ref_labels = torch.arange(len(embeddings), device=embeddings.device)
        # Nor may labels be one tensor: pytorch-metric-learning's losses leave out a batch's pairs with itself by that.
        assert ref_labels is not None
        if isinstance(ref_labels, Tensor):
            ref_labels = ref_labels.view_as(ref_labels)
        return self._both(embeddings, labels, ref_emb, ref_labels)

    def _both(self, first: Tensor, labels: Labels, second: Tensor, ref_labels: Labels | None) -> Tensor:
        # One tensor for both sides would be taken for a batch compared with itself.
        second = second.view_as(second) if second is first else second
        turned = labels.turned() if isinstance(labels, Grades) else ref_labels
        there = self.value(self.loss, first, labels, None, second, ref_labels)
        back = self.value(self.loss, second, turned, None, first, None if ref_labels is None else labels)
        return (there + back) / 2
