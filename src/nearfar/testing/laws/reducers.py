"""Laws of reducers."""

from __future__ import annotations
