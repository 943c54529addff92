"""Where a backbone's weights come from: files, packages, and timm's own."""

from __future__ import annotations

import argparse
import os
import pickle
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import timm
import torch
from huggingface_hub import constants as hub
from torch import Tensor, nn

from nearfar.errors import ArgumentError, CheckpointError
from nearfar.models.packages import find_package

# Key of the safetensors metadata under which `save_model` keeps its own.
METADATA_KEY: Final = "nearfar"
_PACKAGE: Final = "package:"
# Added by DistributedDataParallel, torch.compile, trainers and embedding models, in any order.
_PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.")
_CONTAINERS: Final = ("state_dict", "model")
_EXAMPLES: Final = 3


def load_checkpoint(backbone: nn.Module, source: str | os.PathLike[str], *, name: str) -> None:
    """Load `source`, a file or ``package:NAME``, into `backbone`, the timm model `name` without classifier.

    Raises
    ------
    CheckpointError
        The source cannot be read, or has not exactly the backbone's tensors and, perhaps, a classifier's.
    """
    text = os.fspath(source)
    if text.startswith(_PACKAGE):
        path, package = find_package(text.removeprefix(_PACKAGE), name=name)
        tensors = package.rename(read_tensors(path))
    else:
        path = Path(text)
        tensors = _without_prefixes(_backbone_of_own_file(path, read_tensors(path)))
    own = backbone.state_dict()
    classifiers = _classifiers(backbone)
    kept = {key: value for key, value in tensors.items() if key in own or not key.startswith(classifiers)}
    for key, value in own.items():
        if key.endswith(".num_batches_tracked"):
            # Files older than torch 0.4.1 lack this counter, which nothing but a cumulative average reads.
            kept.setdefault(key, value)
    check_tensors(kept, own, path=path, model=name)
    backbone.load_state_dict(kept)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU; nothing in the file is executed.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would have to run code, or holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # timm's training script keeps its arguments, plain data, in a Namespace. The warning is about a pickle of a
        # newer protocol, which is read or refused all the same.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise CheckpointError(f"{path} is damaged, or no checkpoint of torch") from error
        raise CheckpointError(
            f"{path} holds Python objects beside tensors, and loading those could run any code: where you trust it, "
            f"load it with torch and save its state_dict as .safetensors"
        ) from error
    except Exception as error:  # on bytes that are no checkpoint torch's reader raises whatever it stumbles over
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {_first_line(error)}") from error
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path} holds no state dict, neither bare nor under {' or '.join(_CONTAINERS)}")
    return dict(content)


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, path: Path, model: str) -> None:
    """Raise a CheckpointError, in one sentence, unless both have the same names and shapes."""
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    other = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    if not missing and not unexpected and not other:
        return
    shapes = [f"{key}: {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}" for key in other]
    problems = [
        f"{len(keys)} {what} ({', '.join(examples[:_EXAMPLES])}{', …' if len(keys) > _EXAMPLES else ''})"
        for keys, what, examples in (
            (missing, f"of {len(wanted)} tensors are missing", missing),
            (unexpected, f"of its {len(found)} are not the model's", unexpected),
            (other, "have another shape", shapes),
        )
        if keys
    ]
    raise CheckpointError(
        f"{path} does not fit {model}: {'; '.join(problems)}: check the model's name, in_chans and image_size against "
        f"what the file was made with"
    )


def build_pretrained(name: str, build_kwargs: Mapping[str, Any]) -> nn.Module:
    """Build a timm model with timm's own weights, from its cache or the network.

    Raises
    ------
    ArgumentError
        The model does not take one of the arguments.
    CheckpointError
        There are no such weights, or they cannot be fetched.
    """
    config = timm.models.get_pretrained_cfg(name)
    own_source = {"pretrained_cfg", "pretrained_cfg_overlay"} & set(build_kwargs)
    if not own_source and (config is None or not config.has_weights):
        # timm warns and goes on with random weights for some of these.
        raise CheckpointError(f"timm has no pretrained weights for {name}: pass pretrained=False, or checkpoint=FILE")
    try:
        with _no_retries_without_network():
            backbone: nn.Module = timm.create_model(name, pretrained=True, **build_kwargs)
    except TypeError as error:
        raise ArgumentError(f"timm cannot build {name} with these arguments: {error}") from error
    except Exception as error:  # errors of sockets, of HTTP clients, of the hub and of the file alike
        raise CheckpointError(
            f"the pretrained weights of {name} could not be loaded ({_first_line(error)}): check the network, "
            f"or pass checkpoint=FILE"
        ) from error
    return backbone


@contextmanager
def _no_retries_without_network() -> Iterator[None]:
    """Let the hub's client look into its cache only, where its host's name cannot even be resolved.

    It would retry each of a model's possible files for half a minute.
    """
    host = urllib.parse.urlsplit(hub.ENDPOINT).hostname
    before = hub.HF_HUB_OFFLINE
    # Behind a proxy it is the proxy that resolves names.
    if not before and host is not None and not urllib.request.getproxies():
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _backbone_of_own_file(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if METADATA_KEY not in read_metadata(path):
        return tensors
    return {key: value for key, value in tensors.items() if key.startswith("backbone.")}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a readable safetensors file; empty where it has none, or is another kind of file."""
    if path.suffix != ".safetensors":
        return {}
    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in _PREFIXES if tensors and all(key.startswith(p) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _classifiers(backbone: nn.Module) -> tuple[str, ...]:
    """Prefixes of the names that the classifier of this timm model has, where it has one."""
    names = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    # Where timm names the linear layer of a classifier with its own normalisation, both are meant.
    return tuple(f"{name.removesuffix('.linear').removesuffix('.l')}." for name in names)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
