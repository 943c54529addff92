"""What every source of images has in common, and how any dataset of images and labels becomes one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nearfar.data.image import to_tensor
from nearfar.data.size import Size
from nearfar.errors import DataError


class ImageSource(Dataset[tuple[Tensor, int]]):
    """Labelled images of one size.

    ``source[i]`` is ``(image, label)``: a uint8 tensor (3, H, W) and a class id. Subclasses set the two attributes
    and implement ``image``.

    Attributes
    ----------
    labels : Tensor
        (n,) int64, the class ids of all images, each of 0 … num_classes − 1 occurring.
    class_names : tuple of str
        The name of each class id.
    """

    labels: Tensor
    class_names: tuple[str, ...]
    #: Whether an image is read from a file each time, so that more processes read faster.
    reads_files: bool = False
    #: By split, where the source is divided already.
    parts: Mapping[str, ImageSource] = {}
    #: (n,) int64, the camera or sequence of each image, where that is known.
    cameras: Tensor | None = None
    #: (n,) bool, which images are queries, where that is known; the others are the gallery they are searched in.
    queries: Tensor | None = None
    #: (n,) int64 each, the set of images that each is judged with, and within it the film, where that is known.
    templates: Tensor | None = None
    media: Tensor | None = None
    #: Of each template, where they have names.
    template_names: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def image(self, index: int) -> Tensor:
        """Return one image, (3, H, W) uint8."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a data set of {len(self)}")
        return self.image(index), int(self.labels[index])

    def asked(self) -> Tensor:
        """Positions, (m,) rising, of the images whose classes are asked for: all but distractors."""
        if self.queries is None:
            return torch.arange(len(self))
        return torch.isin(self.labels, self.labels[self.queries]).nonzero()[:, 0]

    def check(self) -> None:
        """Verify that every image can be read; raises a :class:`~nearfar.errors.DataError` that names those that can't.

        Sources whose images are in memory have nothing to verify.
        """


#: Items whose labels are compared with those a data set keeps.
_COMPARED = 16

# What may be known of each image besides its class.
_TOLD = ("cameras", "queries", "templates", "media")


class ClassSubset(ImageSource):
    """Some classes of a source, numbered afresh from 0 in the order given.

    Parameters
    ----------
    source : ImageSource
        Where the images are.
    classes : sequence of int
        The class ids to keep.
    """

    def __init__(self, source: ImageSource, classes: Sequence[int]) -> None:
        self.source = source
        self.class_names = tuple(source.class_names[old] for old in classes)
        new_id = torch.full((source.num_classes,), -1)
        new_id[torch.tensor(classes, dtype=torch.int64)] = torch.arange(len(classes))
        new_labels = new_id[source.labels]
        self.indices = torch.nonzero(new_labels >= 0)[:, 0]
        self.labels = new_labels[self.indices]
        for name in _TOLD:
            told = getattr(source, name)
            setattr(self, name, None if told is None else told[self.indices])
        self.template_names = source.template_names

    def image(self, index: int) -> Tensor:
        """Return one image, (3, H, W) uint8."""
        return self.source.image(int(self.indices[index]))

    def check(self) -> None:
        """Verify the whole source the classes were taken from."""
        self.source.check()


class ClassUnion(ImageSource):
    """The classes of several sources, numbered one source after the other.

    Parameters
    ----------
    sources : sequence of ImageSource
        Of images of one size, with no class in common; cameras, templates and films are numbered alike in all of them,
        as in the parts of one table.
    """

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        self.sources = tuple(sources)
        self.class_names = tuple(name for source in sources for name in source.class_names)
        before = itertools.accumulate((source.num_classes for source in sources), initial=0)
        self.labels = torch.cat([source.labels + first for source, first in zip(sources, before, strict=False)])
        self.reads_files = any(source.reads_files for source in sources)
        for name in _TOLD:
            told = [getattr(source, name) for source in sources]
            setattr(self, name, None if any(one is None for one in told) else torch.cat(told))

    def image(self, index: int) -> Tensor:
        """Return one image, (3, H, W) uint8."""
        index %= len(self)
        place = 0
        while index >= len(self.sources[place]):
            index -= len(self.sources[place])
            place += 1
        return self.sources[place].image(index)

    def check(self) -> None:
        """Verify each of the sources."""
        for source in self.sources:
            source.check()


class Adapted(ImageSource):
    """Any map-style dataset that gives ``(image, label)`` as an :class:`ImageSource`.

    Images may be PIL images, arrays (H, W) or (H, W, 3) of uint8, or tensors (1 | 3, H, W) of uint8 or of floats in
    [0, 1]; their middle is cut out. Labels are any integers and become 0 … C − 1 in their order. They are read from
    the dataset's ``labels`` or ``targets`` where it has one as long as itself, with which some items agree: a data set
    may give other labels than it keeps. Otherwise every item is loaded once.

    Parameters
    ----------
    dataset : Dataset
        With ``__len__`` and ``__getitem__``.
    image_size : int or (height, width)
        Of the images in pixels.

    Raises
    ------
    DataError
        The dataset is empty, has no length, or its items are not pairs of an image and an integer.
    """

    def __init__(self, dataset: Any, *, image_size: Size = 64) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(
                f"a data set needs a length and items by index, and {type(dataset).__name__} lacks one of them: "
                "give a map-style torch Dataset, or the path of a folder"
            )
        if len(dataset) == 0:
            raise DataError(
                f"the data set {type(dataset).__name__} is empty: give one with at least two images a class"
            )
        self.dataset = dataset
        self.image_size = image_size
        original = _original_labels(dataset)
        values, self.labels = torch.unique(original, return_inverse=True)
        self.class_names = _class_names(dataset, values)

    def image(self, index: int) -> Tensor:
        """Return one image, (3, H, W) uint8."""
        return to_tensor(_pair(self.dataset, index)[0], self.image_size)

    def check(self) -> None:
        """Load every item once."""
        for index in range(len(self)):
            self.image(index)


def _original_labels(dataset: Any) -> Tensor:
    """Return the labels (n,) int64 as the dataset numbers them."""
    for name in ("labels", "targets"):
        found = getattr(dataset, name, None)
        if found is None or not hasattr(found, "__len__") or len(found) != len(dataset):
            continue
        labels = torch.as_tensor(found)
        if labels.dim() == 1 and not labels.is_floating_point() and _agree(dataset, labels):
            return labels.to(torch.int64)
    return torch.tensor([_label(dataset, index) for index in range(len(dataset))])


def _agree(dataset: Any, labels: Tensor) -> bool:
    """Whether some items, from the first to the last, have these labels."""
    some = {place * (len(labels) - 1) // (_COMPARED - 1) for place in range(_COMPARED)}
    return all(_label(dataset, index) == int(labels[index]) for index in some)


def _pair(dataset: Any, index: int) -> tuple[Any, Any]:
    item = dataset[index]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise DataError(
            f"item {index} of {type(dataset).__name__} is not a pair (image, label) but {_described(item)}: "
            "wrap the data set so that it gives pairs"
        )
    return item[0], item[1]


def _label(dataset: Any, index: int) -> int:
    label = _pair(dataset, index)[1]
    try:
        as_int = int(label)
        exact = bool(as_int == label)
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise DataError(
            f"the label of item {index} of {type(dataset).__name__} is not a class id but {_described(label)}: "
            "give integers"
        )
    return as_int


def _described(thing: object) -> str:
    if isinstance(thing, (tuple, list)):
        return f"a {type(thing).__name__} of {len(thing)}"
    if isinstance(thing, (str, float)):
        return repr(thing)
    return f"a {type(thing).__name__}"


def _class_names(dataset: Any, values: Tensor) -> tuple[str, ...]:
    names = getattr(dataset, "class_names", None) or getattr(dataset, "classes", None)
    ids = [int(value) for value in values]
    if isinstance(names, (list, tuple)) and ids[0] >= 0 and ids[-1] < len(names):
        return tuple(str(names[one]) for one in ids)
    return tuple(str(one) for one in ids)
