"""Templates: a set of images of one identity that is judged as one, as the IJB benchmarks do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate.topk import check_embeddings, check_integers


def template_features(
    embeddings: Tensor, templates: Tensor, media: Tensor | None = None, *, normalize: bool = True
) -> tuple[Tensor, Tensor]:
    r"""One embedding a template: the mean of those of its images.

    With media, those of each medium, such as the frames of a film, are averaged first, so that a long film counts as
    much as a photograph:

    .. math::

        f_t = \frac{1}{|M_t|} \sum_{m \in M_t} \frac{1}{|I_{tm}|} \sum_{i \in I_{tm}} x_i

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.
    templates : Tensor
        (n,) integers: the template of each image.
    media : Tensor, optional
        (n,) integers: its medium; the same number in two templates is two media.
    normalize : bool
        Whether embeddings are scaled to length one before. The length tells of the quality of an image for some
        losses; without scaling, better images count more.

    Returns
    -------
    features : Tensor
        (t, d), float32 or wider, by rising number of their template. They are not of length one: cosines are asked.
    numbers : Tensor
        (t,) The templates.

    Raises
    ------
    InputError
        A shape, dtype or value does not fit.

    References
    ----------
    Maze et al. (2018). IARPA Janus Benchmark - C: Face Dataset and Protocol. ICB (the protocol).
    """
    check_embeddings("embeddings", embeddings)
    check_integers("templates", templates, len(embeddings))
    if media is not None:
        check_integers("media", media, len(embeddings))
        if media.device != embeddings.device:
            raise InputError(f"embeddings are on {embeddings.device} and media on {media.device}")
    x = embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32))
    x = F.normalize(x, dim=1) if normalize else x
    templates = templates.to(x.device)
    if media is not None:
        films, of = torch.unique(torch.stack([templates, media], 1), dim=0, return_inverse=True)
        x, templates = _means(x, of, len(films)), films[:, 0]
    numbers, of = torch.unique(templates, return_inverse=True)
    return _means(x, of, len(numbers)), numbers


def _means(x: Tensor, group: Tensor, count: int) -> Tensor:
    """The mean of the rows of each group, (count, d); summed in float64, so that the order does not tell."""
    sums = torch.zeros(count, x.shape[1], dtype=torch.float64, device=x.device).index_add_(0, group, x.double())
    return (sums / group.bincount(minlength=count)[:, None]).to(x.dtype)
