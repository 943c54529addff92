"""Batches of P classes × K images, each a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nearfar.data.source import ImageSource
from nearfar.errors import ArgumentError, DataError
from nearfar.nn import counted

# What a key is for; keys of different purposes never coincide by having the same counters.
_CLASSES, _IMAGES, _AUGMENTATION = 0, 1, 2


class Draw(NamedTuple):
    """One image of one batch, and where it is used."""

    image: int
    step: int
    position: int


class PKSampler(Sampler[list[Draw]]):
    """A batch sampler: every batch has P different classes and K images of each, class by class.

    An epoch is a permutation of the classes cut into batches of P; the few classes that do not fill another batch sit
    this epoch out, so that over the epochs every class appears about equally often, whatever its number of images. A
    class gives K of its images without repeats; one with fewer than K gives all of them before any is repeated.

    The batch of step t is ``sampler.batch(t)``, a function of the labels, P, K, the seed and t: nothing is consumed.
    A run that goes on from ``start_step`` gets the batches that the uninterrupted run would have got.

    Parameters
    ----------
    labels : Tensor or sequence of int
        (n,) the class of each image.
    classes_per_batch : int
        P.
    samples_per_class : int
        K.
    steps : int
        The number of batches of the whole run, counted from step 0.
    seed : int
        Another seed, another sequence of batches.
    start_step : int
        The first step to yield; those before it are taken as done. ``len(sampler)`` stays ``steps``.

    Raises
    ------
    DataError
        There are fewer than P classes.
    ArgumentError
        A number is out of its range.

    Examples
    --------
    >>> sampler = PKSampler([0, 0, 1, 1, 2, 2], classes_per_batch=2, samples_per_class=2, steps=10, seed=0)
    >>> [len(batch) for batch in sampler] == [4] * 10
    True
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        *,
        classes_per_batch: int,
        samples_per_class: int,
        steps: int,
        seed: int = 0,
        start_step: int = 0,
    ) -> None:
        for name, value, least in (
            ("classes_per_batch", classes_per_batch, 1),
            ("samples_per_class", samples_per_class, 1),
            ("steps", steps, 0),
            ("start_step", start_step, 0),
        ):
            if value < least:
                raise ArgumentError(f"PKSampler cannot use {name}={value}: it must be at least {least}")
        if start_step > steps:
            raise ArgumentError(f"PKSampler cannot start at step {start_step} of a run of {steps} steps")
        members = _members(torch.as_tensor(labels))
        if len(members) < classes_per_batch:
            raise DataError(
                f"a batch of {classes_per_batch} classes × {samples_per_class} images needs {classes_per_batch} "
                f"classes, and there are {len(members)} to train on: "
                f"lower classes_per_batch to {len(members)} or fewer, or add classes"
            )
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.steps = steps
        self.seed = seed
        self.start_step = start_step
        self._members = members
        self._order: tuple[int, list[int]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches one permutation of the classes gives."""
        return len(self._members) // self.classes_per_batch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Draw]:
        """Return the P × K draws of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self.classes_per_batch
        chosen = self._classes(epoch)[first : first + self.classes_per_batch]
        images = [index for one in chosen for index in self._images(epoch, one)]
        return [Draw(index, step, position) for position, index in enumerate(images)]

    def _classes(self, epoch: int) -> list[int]:
        """Return the permutation of an epoch; the last one is remembered, as its steps come one after the other."""
        if self._order[0] != epoch:
            order = counted.permutation(len(self._members), counted.key(self.seed, _CLASSES, epoch))
            self._order = (epoch, order.tolist())
        return self._order[1]

    def _images(self, epoch: int, chosen: int) -> list[int]:
        members = self._members[chosen]
        images: list[int] = []
        while len(images) < self.samples_per_class:
            at = counted.key(self.seed, _IMAGES, epoch, chosen, len(images))
            order = counted.permutation(len(members), at)[: self.samples_per_class - len(images)]
            images += members[order].tolist()
        return images


class Keyed(Dataset[tuple[Tensor, int, int]]):
    """A source that answers to draws: ``keyed[draw]`` is (image, label, key).

    The key of a draw depends on the seed, the step and the position in the batch, in whichever process it is loaded.

    Parameters
    ----------
    source : ImageSource
        Where the images are.
    seed : int
        The run's seed.
    """

    def __init__(self, source: ImageSource, seed: int = 0) -> None:
        self.source = source
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, int]:
        image, label = self.source[draw.image]
        return image, label, counted.key(self.seed, _AUGMENTATION, draw.step, draw.position)


def _members(labels: Tensor) -> list[Tensor]:
    """Return the images of each class that has any."""
    if labels.dim() != 1 or labels.is_floating_point():
        raise ArgumentError(f"labels are {tuple(labels.shape)} of {labels.dtype}: give one integer for each image")
    order = torch.argsort(labels, stable=True)
    counts = torch.unique(labels, return_counts=True)[1]
    return list(torch.split(order, counts.tolist()))
