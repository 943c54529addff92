"""Templates: sets of images as one, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearfar.errors import InputError
from nearfar.evaluate import template_features

TEMPLATES = torch.tensor([7, 3, 7, 3, 7, 5, 7])
MEDIA = torch.tensor([1, 1, 1, 2, 2, 1, 1])


def images() -> torch.Tensor:
    return torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8)[:, None]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("films", [True, False])
def test_a_template_is_the_mean_of_its_films_and_a_film_of_its_images(films: bool, normalize: bool) -> None:
    found, numbers = template_features(images(), TEMPLATES, MEDIA if films else None, normalize=normalize)
    assert numbers.tolist() == [3, 5, 7]
    x = images().double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if normalize else x
    seven = (x[[0, 2, 6]].mean(0) + x[4]) / 2 if films else x[[0, 2, 4, 6]].mean(0)
    expected = np.stack([x[[1, 3]].mean(0), x[5], seven])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_one_number_in_two_templates_is_two_films() -> None:
    found, _ = template_features(images(), TEMPLATES, MEDIA)
    renamed, _ = template_features(images(), TEMPLATES, MEDIA + 10 * TEMPLATES)
    assert torch.equal(found, renamed)


def test_the_order_of_the_images_changes_nothing() -> None:
    order = torch.tensor([4, 6, 0, 5, 2, 3, 1])
    found, _ = template_features(images(), TEMPLATES, MEDIA)
    shuffled, _ = template_features(images()[order], TEMPLATES[order], MEDIA[order])
    torch.testing.assert_close(shuffled, found, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("templates", "media", "match"),
    [
        (TEMPLATES[:6], None, r"templates must have shape \(7,\)"),
        (TEMPLATES.float(), None, "templates must be integers"),
        (TEMPLATES, MEDIA[:3], r"media must have shape \(7,\)"),
    ],
)
def test_what_does_not_fit_is_told(templates: torch.Tensor, media: torch.Tensor | None, match: str) -> None:
    with pytest.raises(InputError, match=match):
        template_features(images(), templates, media)
