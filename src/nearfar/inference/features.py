"""The embeddings of a batch of images, of their mirror images too where that is wanted."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from nearfar.data import Prepare
from nearfar.data.size import input_size
from nearfar.errors import ArgumentError
from nearfar.models import EmbeddingModel

Flip = Literal["none", "sum", "concatenate"]
#: What may be done with an image's mirror image.
FLIPS = get_args(Flip)


@torch.no_grad()
def features(model: EmbeddingModel, images: Tensor, *, flip: Flip = "none") -> Tensor:
    """Embed a batch of images as they are judged: the model in evaluation mode, nothing random.

    Parameters
    ----------
    model : EmbeddingModel
        Its mode is afterwards what it was.
    images : Tensor
        (n, 3, H, W) uint8, on the model's device.
    flip : {"none", "sum", "concatenate"}
        ``sum``: the embedding of the image plus that of its mirror image, before any are scaled to length one, as
        insightface does. ``concatenate``: one behind the other, twice as long, as SphereFace does.

    Returns
    -------
    Tensor
        (n, embedding_size) float32 on the CPU, twice as wide where concatenated.

    Raises
    ------
    ArgumentError
        ``flip`` is none of the three.
    ConfigError
        The model takes other images than RGB ones.
    """
    if flip not in FLIPS:
        raise ArgumentError(f"flip is {flip!r}, but must be one of {', '.join(FLIPS)}")
    about = model.data_config
    prepare = Prepare(input_size(about), mean=about["mean"], std=about["std"]).to(images.device)
    was_training = model.training
    model.eval()
    try:
        inputs = prepare(images)
        found: Tensor = model(inputs).float()
        if flip != "none":
            mirrored = model(inputs.flip(-1)).float()
            found = found + mirrored if flip == "sum" else torch.cat([found, mirrored], 1)
        return found.cpu()
    finally:
        model.train(was_training)
