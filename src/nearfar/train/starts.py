"""Class vectors of a run that start where the network puts its classes, before the first step."""

from __future__ import annotations

import torch
from torch import nn

from nearfar.data import ImageSource
from nearfar.errors import ConfigError, InputError
from nearfar.models import EmbeddingModel
from nearfar.nn import Criterion
from nearfar.nn.class_means import ClassMeans, has_class_vectors
from nearfar.train.table import embedded

__all__ = ["start_at_class_means", "startable"]


def start_at_class_means(
    criterion: Criterion, model: EmbeddingModel, train: ImageSource, *, device: torch.device, workers: int
) -> None:
    """Put the class vectors of all terms at the means of what an untrained network makes of their images, in one pass.

    Parameters
    ----------
    criterion : Criterion
        None of its terms is sharded yet.
    model : EmbeddingModel
        It is moved to ``device``.
    train : ImageSource
        The training images, as they are, without augmentation.
    device : torch.device
    workers : int
        Processes that load images.

    Raises
    ------
    ConfigError
        No term has class vectors, or the network gives embeddings that are not finite.
    """
    means = [ClassMeans(module) for module in startable(criterion)]
    try:
        for found, labels in embedded(model, train, device=device, workers=workers):
            for each in means:
                each.add(found, labels)
    except InputError as error:
        raise ConfigError(f"head.start is class_means, and the network before training gives none: {error}") from error
    for each in means:
        each.finish()


def startable(criterion: Criterion) -> list[nn.Module]:
    """The modules whose class vectors can start at means.

    Raises
    ------
    ConfigError
        There are none.
    """
    found = [module for module in criterion.modules() if has_class_vectors(module)]
    if not found:
        raise ConfigError(
            f"head.start is class_means, and {criterion.recipe} has no class vectors that could start there: leave "
            "head.start out, or train on a loss with proxies, centres or class weights"
        )
    return found
