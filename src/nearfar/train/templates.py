"""Sources whose images are judged in sets: an embedding a template in place of one an image."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data import ImageSource
from nearfar.errors import DataError
from nearfar.evaluate import template_features


class Templates(ImageSource):
    """What templates are of, one row each; they have no one image."""

    def __init__(self, labels: Tensor, queries: Tensor | None, class_names: tuple[str, ...]) -> None:
        self.labels, self.queries, self.class_names = labels, queries, class_names


def by_template(x: Tensor, source: ImageSource) -> tuple[Tensor, ImageSource]:
    """The embeddings of templates and what they are of, where the source has templates; all as it is elsewhere.

    Parameters
    ----------
    x : Tensor
        (n, d) embeddings of the source's images.
    source : ImageSource

    Raises
    ------
    DataError
        A template is in the queries and in the gallery.
    """
    if source.templates is None:
        return x, source
    made, numbers = template_features(x, source.templates, source.media)
    of = torch.searchsorted(numbers, source.templates)
    first = firsts(of, len(numbers))
    queries = None
    if source.queries is not None:
        queries = source.queries[first]
        if torn := int((queries[of] ^ source.queries).sum()):
            raise DataError(f"{torn} images are queries and their template is not, or the other way about")
    return made, Templates(source.labels[first], queries, source.class_names)


def firsts(of: Tensor, count: int) -> Tensor:
    """The first image of each of so many templates, (count,); ``of`` (n,) is the template of each image."""
    images = torch.arange(len(of))
    return images.new_full((count,), len(of)).scatter_reduce_(0, of, images, "amin")


def told_templates(source: ImageSource) -> tuple[str, ...]:
    """What is done with templates, for the tag of a figure; nothing where there are none."""
    if source.templates is None:
        return ()
    films = "" if source.media is None else ", film by film"
    return (f"{len(source)} images as templates, each the mean of their embeddings of length one{films}",)
