"""Where proxies and centres start: drawn, or at the means of their classes in a first pass.

::

    loss = nearfar.create_loss("proxy_nca(init='orthogonal')", num_classes=100, embedding_size=64)
    initialize(loss, ((model(images), labels) for images, labels in loader))
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice
from nearfar.nn.class_means import initialize
from nearfar.nn.vectors import unit

__all__ = ["CenterStart", "Start", "centers", "initialize", "proxies"]

Start = Literal["normal", "uniform", "orthogonal"]
CenterStart = Literal["zero", "normal", "orthogonal"]


def proxies(owner: object, init: str, rows: int, dim: int, *, std: float = 1.0) -> Tensor:
    """(rows, dim) of a part that is being made, drawn with torch's global generator.

    Parameters
    ----------
    owner
        The part, for the message.
    init
        ``normal`` and ``uniform``: of standard deviation ``std``. ``orthogonal``: as many at right angles as there are
        dimensions, and where there are more rows spread evenly over the dimensions; each as long as normal ones are in
        the mean square.
    rows, dim, std
        As above.

    Raises
    ------
    ArgumentError
        ``init`` is none of the three.
    """
    check_choice(owner, "init", init, ("normal", "uniform", "orthogonal"))
    drawn = torch.empty(rows, dim)
    if init == "normal":
        return nn.init.normal_(drawn, std=std)
    if init == "uniform":
        return nn.init.uniform_(drawn, -std * 3**0.5, std * 3**0.5)
    nn.init.orthogonal_(drawn)
    length: float = std * dim**0.5
    return unit(drawn)[0] * length


def centers(owner: object, init: str, rows: int, dim: int) -> Tensor:
    """The same, of variance 1, for centres, which may also start at ``zero``."""
    check_choice(owner, "init", init, ("zero", "normal", "orthogonal"))
    return torch.zeros(rows, dim) if init == "zero" else proxies(owner, init, rows, dim)
