"""Batches of P classes × K images, each a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nearfar.data.source import ImageSource
from nearfar.errors import ArgumentError, DataError
from nearfar.nn import counted

# What a key is for; keys of different purposes never coincide by having the same counters.
_CLASSES, _IMAGES, _AUGMENTATION, _ANCHORS = 0, 1, 2, 3


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
        The first step to yield; those before it are taken as done. ``len(sampler)`` is of what is left.
    rank, world_size : int
        Of ``world_size`` processes each gets P classes of its own, which together are the batch that one process gets
        with world_size · P.

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
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, value, least in (
            ("classes_per_batch", classes_per_batch, 1),
            ("samples_per_class", samples_per_class, 1),
            ("steps", steps, 0),
            ("start_step", start_step, 0),
            ("rank", rank, 0),
            ("world_size", world_size, 1),
        ):
            if value < least:
                raise ArgumentError(f"PKSampler cannot use {name}={value}: it must be at least {least}")
        if start_step > steps:
            raise ArgumentError(f"PKSampler cannot start at step {start_step} of a run of {steps} steps")
        if rank >= world_size:
            raise ArgumentError(f"PKSampler cannot use rank={rank}: there are {world_size} ranks, counted from 0")
        class_ids = _class_ids(labels)
        members = _members(class_ids)
        if len(members) < classes_per_batch * world_size:
            if world_size > 1:
                raise DataError(
                    f"{world_size} ranks of {classes_per_batch} classes need {world_size * classes_per_batch} classes, "
                    f"and there are {len(members)} to train on: lower classes_per_batch, or add classes"
                )
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
        self.rank = rank
        self.world_size = world_size
        self._class_ids = class_ids
        self._members = members
        self._order: tuple[int, list[int]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches one permutation of the classes gives."""
        return len(self._members) // (self.classes_per_batch * self.world_size)

    def __len__(self) -> int:
        return self.steps - self.start_step

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Draw]:
        """Return the P × K draws of a step."""
        first = self.rank * self.classes_per_batch
        own = self._groups(step)[first : first + self.classes_per_batch]
        images = [index for group in own for index in group]
        # Counted over all ranks, so that no two of them augment alike.
        return [Draw(index, step, first * self.samples_per_class + at) for at, index in enumerate(images)]

    def _groups(self, step: int) -> list[list[int]]:
        """The images of each class of a step, of all ranks."""
        epoch, place = divmod(step, self.steps_per_epoch)
        count = self.classes_per_batch * self.world_size
        chosen = self._classes(epoch)[place * count : (place + 1) * count]
        return [self._images(epoch, one) for one in chosen]

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
            images += members[self._order_of(epoch, chosen, len(images))].tolist()
        return images[: self.samples_per_class]

    def _order_of(self, epoch: int, chosen: int, already: int = 0) -> Tensor:
        """A permutation of a class's images, another where some were given already."""
        return counted.permutation(len(self._members[chosen]), counted.key(self.seed, _IMAGES, epoch, chosen, already))


class HardSampler(PKSampler):
    """Batches of P classes × K images that stand in pairs: what is hard to tell apart comes together.

    A pair is an anchor, in whose class its farthest positives come first, and one of the anchor's nearest negatives,
    with more images of its class. Anchors are taken in the order of a permutation, another every epoch; one whose
    class, or whose negatives', the batch has already is passed over. Where no pair is left, and for the last class
    where P is odd, classes are drawn as by :class:`PKSampler`.

    Parameters
    ----------
    labels, classes_per_batch, samples_per_class, steps, seed, start_step, rank, world_size
        As of :class:`PKSampler`; batches are a function of the same, and of what is hard.
    anchors : Tensor
        (m,) places in the data set.
    positives : Tensor
        (m, p) places of each anchor's positives, the hardest first; −1 where it has fewer.
    negatives : Tensor
        (m, q) places of each anchor's negatives; −1 where it has fewer.

    Raises
    ------
    DataError, ArgumentError
        As of :class:`PKSampler`; or what is hard is not of these shapes or not of this data set.

    Examples
    --------
    >>> from nearfar.train.offline import hardest
    >>> labels = torch.arange(40) // 4
    >>> hard = hardest(torch.randn(40, 8), labels, positives=3, negatives=4)
    >>> hard = {"anchors": hard.anchors, "positives": hard.positives, "negatives": hard.negatives}
    >>> sampler = HardSampler(labels, **hard, classes_per_batch=4, samples_per_class=2, steps=10)
    >>> [len(batch) for batch in sampler] == [8] * 10
    True
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        *,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        classes_per_batch: int,
        samples_per_class: int,
        steps: int,
        seed: int = 0,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            labels,
            classes_per_batch=classes_per_batch,
            samples_per_class=samples_per_class,
            steps=steps,
            seed=seed,
            start_step=start_step,
            rank=rank,
            world_size=world_size,
        )
        self._class_of = torch.unique(self._class_ids, return_inverse=True)[1].tolist()
        self._hard = anchors.tolist(), positives.tolist(), negatives.tolist()
        if anchors.ndim != 1 or any(x.ndim != 2 or len(x) != len(anchors) for x in (positives, negatives)):
            shapes = ", ".join(str(tuple(x.shape)) for x in (anchors, positives, negatives))
            raise ArgumentError(f"HardSampler takes anchors (m,), positives (m, p) and negatives (m, q); got {shapes}")
        for name, places in (("anchors", anchors), ("positives", positives), ("negatives", negatives)):
            least = 0 if name == "anchors" else -1
            if places.numel() and not least <= int(places.min()) <= int(places.max()) < len(self._class_of):
                raise ArgumentError(
                    f"HardSampler: {name} run from {int(places.min())} to {int(places.max())}, and there are "
                    f"{len(self._class_of)} images"
                )
        self._anchor_order: tuple[int, list[int]] = (-1, [])

    def _groups(self, step: int) -> list[list[int]]:
        epoch, place = divmod(step, self.steps_per_epoch)
        count, groups = self.classes_per_batch * self.world_size, dict[int, list[int]]()
        anchors, positives, negatives = self._hard
        order = self._anchors(epoch)
        start = place * (count // 2)
        for at in (order[(start + offset) % len(order)] for offset in range(len(order))):
            if len(groups) + 2 > count:
                break
            own = self._class_of[anchors[at]]
            other = next((n for n in negatives[at] if n >= 0 and self._class_of[n] not in groups), -1)
            if own in groups or other < 0:
                continue
            hard = [p for p in positives[at] if p >= 0]
            groups[own] = self._filled(epoch, own, [anchors[at], *hard])
            groups[self._class_of[other]] = self._filled(epoch, self._class_of[other], [other])
        rest = (one for one in self._classes(epoch) if one not in groups)
        while len(groups) < count:
            one = next(rest)
            groups[one] = self._images(epoch, one)
        return list(groups.values())

    def _anchors(self, epoch: int) -> list[int]:
        if self._anchor_order[0] != epoch:
            order = counted.permutation(len(self._hard[0]), counted.key(self.seed, _ANCHORS, epoch))
            self._anchor_order = (epoch, order.tolist())
        return self._anchor_order[1]

    def _filled(self, epoch: int, chosen: int, first: list[int]) -> list[int]:
        """K images of a class, these first."""
        members = self._members[chosen][self._order_of(epoch, chosen)].tolist()
        rest = [image for image in members if image not in first]
        images = [*first, *rest]
        return [images[at % len(images)] for at in range(self.samples_per_class)]


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


def _class_ids(labels: Tensor | Sequence[int]) -> Tensor:
    """The labels as a tensor (n,) of integers."""
    try:
        ids = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        listed = labels if isinstance(labels, Iterable) else [labels]
        odd = next((label for label in listed if not isinstance(label, Integral)), labels)
        raise ArgumentError(
            f"labels have {odd!r}: give one integer for each image, such as the place of its class's name in a sorted "
            "list"
        ) from None
    if ids.dim() != 1 or ids.is_floating_point():
        raise ArgumentError(f"labels are {tuple(ids.shape)} of {ids.dtype}: give one integer for each image")
    return ids


def _members(labels: Tensor) -> list[Tensor]:
    """Return the images of each class that has any."""
    order = torch.argsort(labels, stable=True)
    counts = torch.unique(labels, return_counts=True)[1]
    return list(torch.split(order, counts.tolist()))
