"""One embedding before others at any similarities: where the weights of pairs can be read one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.build import compose
from nearfar.errors import InputError, NearfarError
from nearfar.explain.weights import gradient_of
from nearfar.nn import Criterion
from nearfar.recipe import Recipe
from nearfar.registry import Registry, default_registry
from nearfar.spec import LossSpec


class Anchor:
    """A loss that is asked about one anchor and what it is compared with: a reference set, or the loss's classes.

    The anchor is a unit vector, and each other is one at the similarity wanted to it, in a dimension of its own
    otherwise. So all similarities can be set freely, and the gradient by the anchor has the weight of each pair in its
    dimension.

    Parameters
    ----------
    recipe : str or Recipe
        One loss, maybe with a miner; its reducer is ``sum``, since a mean's divisor is no weighting of pairs.
    positives, negatives : int
        How many of each; of a loss with classes there is one positive.
    registry : Registry, optional
        Where names are looked up.

    Attributes
    ----------
    positive : Tensor
        (m,) bool: which of the others are of the anchor's class.

    Raises
    ------
    InputError
        The recipe is not one loss on embeddings that takes a reference set or has classes.
    """

    def __init__(
        self, recipe: Any, *, positives: int = 3, negatives: int = 5, registry: Registry | None = None
    ) -> None:
        self._registry = default_registry() if registry is None else registry
        read = Recipe.of(recipe)
        self.spec = spec = self._spec(read)
        self.positive = torch.arange(positives + negatives) < positives
        if not spec.reference:
            self.positive = torch.arange(1 + negatives) < 1
        self._context = {"num_classes": len(self.positive), "embedding_size": len(self.positive) + 1}
        self.recipe = Recipe.of(recipe, reducer="sum")
        try:
            criterion = self.make()
        except NearfarError:  # it has a reducer of its own, or takes none
            self.recipe = read
            criterion = self.make()
        if not spec.reference and not _class_vectors(criterion, len(self.positive)):
            raise InputError(f"{read} takes no reference set and has no class vectors that can be set")

    def _spec(self, recipe: Recipe) -> LossSpec:
        """The spec of the one loss of a recipe, on embeddings."""
        planned = recipe.plan(self._registry, num_classes=2, embedding_size=2)
        if not planned.terms:
            compose(recipe, registry=self._registry)  # says what is wrong
        if len(planned.terms) > 1:
            raise InputError(
                f"{recipe} is a sum of {len(planned.terms)} losses, whose weights of pairs add up: ask for one of them"
            )
        spec = getattr(getattr(planned.terms[0].loss, "entry", None), "spec", None)
        if not isinstance(spec, LossSpec):
            raise InputError(f"{recipe} has an object for its loss: ask for one by name")
        if not spec.on_embeddings:
            raise InputError(
                f"{recipe} is a loss on {' and '.join(spec.inputs[:2])}: there are no pairs of embeddings that it "
                "could weigh"
            )
        return spec

    def make(self) -> Criterion:
        """The criterion, made anew in float64, so that what it keeps is as at the start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return compose(self.recipe, registry=self._registry, **self._context).double().train()

    def weights(self, similarities: Tensor) -> Tensor:
        """∂L/∂S of each pair of the anchor and another.

        Parameters
        ----------
        similarities : Tensor
            (m,) in (−1, 1).

        Returns
        -------
        Tensor
            (m,) float64.
        """
        s = similarities.double()
        size = len(s) + 1
        x = torch.zeros(1, size, dtype=torch.float64)
        x[0, 0] = 1
        across = (1 - s.square()).sqrt()
        others = torch.cat([s[:, None], torch.diag(across)], 1)
        x.requires_grad_()
        criterion = self.make()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.spec.reference:
                labels = torch.where(self.positive, 0, torch.arange(1, size))
                inputs = {"ref_emb": others, "ref_labels": labels}
                gradient = gradient_of(criterion, x, torch.zeros(1, dtype=torch.int64), **inputs)
            else:
                _set_classes(criterion, others)
                gradient = gradient_of(criterion, x, torch.zeros(1, dtype=torch.int64))
        return gradient[0, 1:] / across


def _class_vectors(criterion: nn.Module, classes: int) -> list[Tensor]:
    """The tensors that hold a vector for each class."""
    return [
        tensor
        for tensor in (*criterion.parameters(), *criterion.buffers())
        if tensor.ndim >= 2 and tensor.shape[0] % classes == 0 and tensor.shape[-1] == classes + 1
    ]


@torch.no_grad()
def _set_classes(criterion: nn.Module, vectors: Tensor) -> None:
    for tensor in _class_vectors(criterion, len(vectors)):
        # Several vectors a class lie together, by class.
        each = vectors.repeat_interleave(tensor.numel() // vectors.numel(), 0)
        tensor.copy_(each.reshape(tensor.shape))
