"""What a pass compares, and how its gradient goes back to what was given."""

from __future__ import annotations

from torch import Tensor

from nearfar.nn.vectors import scaled, through_unit

__all__ = ["Points"]


class Points:
    """Embeddings as they are compared: normalised where that is asked for.

    Parameters
    ----------
    given
        (n, d), which nothing here is differentiated by.
    normalize
        Whether they are compared at length one.
    """

    def __init__(self, given: Tensor, *, normalize: bool) -> None:
        #: (n, d).
        self.points = given
        self._lengths: Tensor | None = None
        if normalize:
            self.points, self._lengths, self._have_direction = scaled(given)

    def back(self, by_points: Tensor) -> Tensor:
        """The gradient by what was given."""
        if self._lengths is None:
            return by_points
        return through_unit(by_points, self.points, self._lengths, have_direction=self._have_direction)
