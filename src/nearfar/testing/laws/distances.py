"""Laws of distances and similarities."""

from __future__ import annotations
