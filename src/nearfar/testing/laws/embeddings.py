"""Laws of losses on embeddings."""

from __future__ import annotations
