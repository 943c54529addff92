"""Weights as a picture: a heat map over a batch, curves over similarity."""

from __future__ import annotations

from typing import Any

import torch

from nearfar.build import compose
from nearfar.errors import InputError
from nearfar.explain.anchor import Anchor
from nearfar.explain.responses import curves
from nearfar.explain.weights import pair_weights
from nearfar.figures import figure


def draw(recipe: Any, *, classes: int = 4, per_class: int = 4, seed: int = 0) -> Any:
    """Draw the weights of the pairs of a random batch, and of one pair over its similarity.

    Parameters
    ----------
    recipe : str or Recipe
        One loss on embeddings, maybe with a miner.
    classes, per_class : int
        [2..inf] Of the batch.
    seed : int
        Of the batch.

    Returns
    -------
    matplotlib.figure.Figure
        Without the heat map where a loss compares embeddings with its classes and not with each other.

    Raises
    ------
    InputError
        The recipe is not one loss on embeddings, or neither can be drawn.
    MissingExtra
        matplotlib is missing.
    """
    if min(classes, per_class) < 2:
        raise InputError(f"a batch of {classes} classes with {per_class} each has no pairs of both kinds")
    labels = torch.arange(classes).repeat_interleave(per_class)
    size = 2 * len(labels)
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, size, generator=generator, dtype=torch.float64)
    x = centres[labels] + torch.randn(len(labels), size, generator=generator, dtype=torch.float64)
    x = torch.nn.functional.normalize(x, dim=1)
    panels: list[Any] = []
    try:
        criterion = compose(recipe, num_classes=classes, embedding_size=size).double()
        panels.append(pair_weights(criterion, x, labels))
    except InputError as error:
        reason = error
    try:
        panels.append(curves(Anchor(recipe)))
    except InputError as error:
        reason = error
    if not panels:
        raise reason
    drawn = figure(1, len(panels), width=5.2, height=4.4)
    axes = drawn.axes
    for panel, axis in zip(panels, list(axes), strict=True):
        _heat(drawn, axis, panel, per_class) if isinstance(panel, torch.Tensor) else _curves(axis, panel)
    drawn.suptitle(str(recipe))
    return drawn


def _heat(drawn: Any, axis: Any, weights: torch.Tensor, per_class: int) -> None:
    most = float(weights.abs().max()) or 1.0
    image = axis.imshow(weights.numpy(), cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    for edge in range(per_class, len(weights), per_class):
        axis.axhline(edge - 0.5, color="0.6", linewidth=0.6)
        axis.axvline(edge - 0.5, color="0.6", linewidth=0.6)
    axis.set_title("weight of each pair, by class")
    axis.set_xlabel("blue: drawn together, red: pushed apart")
    axis.set_xticks([])
    axis.set_yticks([])
    drawn.colorbar(image, ax=axis, label="∂L/∂S")


def _curves(axis: Any, found: Any) -> None:
    for name, colour in (("positive", "tab:blue"), ("negative", "tab:red")):
        similarities, weights = found[name]
        axis.plot(similarities.numpy(), weights.numpy(), color=colour, label=f"{name} pair")
    axis.axhline(0, color="0.7", linewidth=0.8)
    axis.set_title("weight of one pair over its similarity")
    axis.set_xlabel("similarity (cosine)")
    axis.set_ylabel("∂L/∂S")
    axis.legend()
