"""Laws of miners."""

from __future__ import annotations
