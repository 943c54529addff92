"""Large batches in the memory of small ones: embeddings chunk by chunk, their gradients as of the whole batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nearfar.errors import ArgumentError


def in_chunks(model: nn.Module, images: Tensor, chunk: int | None) -> Tensor:
    """Embed a batch in chunks of which only one has its activations in memory, also on the way back.

    A loss on embeddings needs all of them but nothing of how they came about. So they are computed without keeping
    activations; once the loss has given their gradients, each chunk is computed again and its gradient goes on into
    the network: gradient caching. It costs one more forward pass. ::

        embeddings = in_chunks(model, images, 32)
        loss = criterion(embeddings, labels)
        loss.backward()

    The gradients are those of the whole batch. What a layer draws from torch's generators, as dropout does, it draws
    again alike. A layer that looks at the batch sees the chunk: the statistics of BatchNorm are of its images, and the
    running ones move on once a chunk, not twice.

    Parameters
    ----------
    model : nn.Module
        (n, …) to (n, d), each image for itself. Draws from Python's and numpy's generators are not repeated.
    images : Tensor
        (n, …)
    chunk : int or None
        [1..inf] Images at once, at most: chunks are as even as can be. None, or as many as there are: the model is
        called once, and nothing twice.

    Returns
    -------
    Tensor
        (n, d) embeddings.

    Raises
    ------
    ArgumentError
        ``chunk`` is no positive integer.

    References
    ----------
    Gao, Zhang, Han, Callan (2021). Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup.
    arXiv:2101.06983.
    """
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise ArgumentError(f"chunk is {chunk!r}, but must be a positive integer, or None for all at once")
    if chunk is None or chunk >= len(images) or not torch.is_grad_enabled():
        whole: Tensor = model(images)
        return whole

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(model)

    even = images.tensor_split(math.ceil(len(images) / chunk))  # BatchNorm cannot take a last one alone
    parts = [
        checkpoint(model, part, use_reentrant=False, preserve_rng_state=True, context_fn=contexts) for part in even
    ]
    return torch.cat(parts)


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Have the second pass over a chunk leave running statistics as the first has made them."""
    moving = [
        (module, {name: buffer.clone() for name, buffer in module.named_buffers(recurse=False)})
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training and module.track_running_stats
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, kept in moving:
                for name, buffer in module.named_buffers(recurse=False):
                    buffer.copy_(kept[name])
