"""Laws of losses on boxes."""

from __future__ import annotations
