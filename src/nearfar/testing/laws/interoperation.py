"""Parts of pytorch-metric-learning beside the part, and the part beside theirs."""

from __future__ import annotations
