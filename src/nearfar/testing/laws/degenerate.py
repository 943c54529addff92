"""Batches that lack what a loss compares, and labels of every sort."""

from __future__ import annotations
