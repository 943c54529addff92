"""Memory, waiting for the device, and what an import costs."""

from __future__ import annotations
