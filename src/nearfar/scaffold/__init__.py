"""Write a plugin that installs, registers, documents and tests itself: what ``nearfar new-plugin`` does.

:mod:`~nearfar.scaffold.names` says what may be called what, a :class:`~nearfar.scaffold.draft.Draft` is what was
asked for, :mod:`~nearfar.scaffold.render` makes its files and :mod:`~nearfar.scaffold.write` puts them down.
"""

from __future__ import annotations

from nearfar.scaffold.draft import FAMILIES, LICENCES, Draft, Part
from nearfar.scaffold.render import render
from nearfar.scaffold.write import check_folder, write

__all__ = ["FAMILIES", "LICENCES", "Draft", "Part", "check_folder", "render", "write"]
