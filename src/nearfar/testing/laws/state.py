"""What a part keeps, and what becomes of it when it is copied, saved and moved."""

from __future__ import annotations
