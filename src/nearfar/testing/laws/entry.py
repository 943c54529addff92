"""Laws of a plugin as a whole."""

from __future__ import annotations
