"""Sources of which each image is a file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from nearfar.cores import usable_cores
from nearfar.data.image import cut, read, reason
from nearfar.data.size import Size
from nearfar.data.source import ImageSource
from nearfar.errors import DataError


class ImageFiles(ImageSource):
    """Labelled image files, cut to their middle and scaled when they are asked for.

    Attributes
    ----------
    paths : tuple of Path
        The file of each image.
    image_size : int or (height, width)
        Of the images given, in pixels.
    labels, class_names
        As of every :class:`~nearfar.data.source.ImageSource`.
    """

    reads_files = True
    paths: tuple[Path, ...]
    image_size: Size

    def image(self, index: int) -> Tensor:
        """Return one image, (3, height, width) uint8."""
        return cut(read(self.paths[index], self.image_size), self.image_size)

    def check(self) -> None:
        """Decode every image once; raises a DataError that names those that cannot be read."""
        with ThreadPoolExecutor(min(8, usable_cores())) as pool:
            problems = [problem for problem in pool.map(self._problem, self.paths) if problem]
        if problems:
            more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
            count = "1 image" if len(problems) == 1 else f"{len(problems)} images"
            raise DataError(
                f"{count} of {len(self)} cannot be read: {'; '.join(problems[:5])}{more}; replace or remove them"
            )

    def _problem(self, path: Path) -> str | None:
        try:
            read(path, self.image_size)
        except DataError as error:
            cause = error.__cause__
            return f"{path} ({reason(cause) if isinstance(cause, Exception) else error})"
        return None
