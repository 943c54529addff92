"""What stands for the classes of a criterion, with their names, in one file: heads, proxies, centres.

::

    save_class_vectors(criterion, "classes.safetensors", names)
    found = load_class_vectors("classes.safetensors")
    found.vectors["proxy_anchor.weight"]  # (classes, dim), in the order of found.names
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from nearfar.errors import ArgumentError, CheckpointError
from nearfar.files import replaced
from nearfar.nn import ClassLoss, Criterion

__all__ = ["ClassVectors", "class_vectors", "load_class_vectors", "save_class_vectors"]

_KEY = "nearfar.classes"


@dataclass(frozen=True, eq=False)
class ClassVectors:
    """The vectors of classes, and what the classes are called.

    Attributes
    ----------
    vectors
        By the term of the criterion and the name there, such as ``softmax.weight`` or ``center.centers``:
        (classes, dim), or (classes, k, dim) where a class has several.
    names
        Of the classes, in the order of the vectors.
    """

    vectors: Mapping[str, Tensor]
    names: tuple[str, ...]


def class_vectors(criterion: Criterion) -> dict[str, Tensor]:
    """The vectors of classes that a criterion has, as in :attr:`ClassVectors.vectors`; copies, on the CPU.

    Every rank has to call it where they are spread over ranks. A loss has those that its
    :meth:`~nearfar.nn.ClassLoss.class_vectors` says; losses of other programs have none.
    """
    found: dict[str, Tensor] = {}
    for term, loss in criterion.losses.items():
        for path, part in loss.named_modules():
            if isinstance(part, ClassLoss):
                of_part = part.class_vectors()
                found |= {".".join(filter(None, (term, path, name))): each for name, each in of_part.items()}
    return {name: each.detach().cpu().clone().contiguous() for name, each in found.items()}


def save_class_vectors(
    criterion: Criterion | Mapping[str, Tensor], path: str | os.PathLike[str], names: Sequence[str]
) -> None:
    """Write the vectors of classes and the names of these; an existing file is replaced at once or not at all.

    Parameters
    ----------
    criterion : Criterion or mapping
        Whose, or what :func:`class_vectors` gave.
    path : path
        Of a file whose name ends in ``.safetensors``. Any program that reads these finds the tensors by their names,
        and the classes, a JSON list, under ``nearfar.classes`` in the metadata.
    names : sequence of str
        (classes,) Class by class.

    Raises
    ------
    ArgumentError
        There are no vectors, or not as many of each sort as names.
    CheckpointError
        The file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"a file of class vectors ends in .safetensors, and {path} does not")
    vectors = class_vectors(criterion) if isinstance(criterion, Criterion) else dict(criterion)
    if not vectors:
        raise ArgumentError("there are no class vectors to write: no loss of the criterion has any")
    for name, each in vectors.items():
        if len(each) != len(names):
            raise ArgumentError(f"{name} has vectors of {len(each)} classes, and {len(names)} names were given")
    content = safetensors.torch.save(vectors, metadata={_KEY: json.dumps(list(names))})
    try:
        with replaced(path) as file:
            file.write(content)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def load_class_vectors(path: str | os.PathLike[str]) -> ClassVectors:
    """Read what :func:`save_class_vectors` wrote, on the CPU.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or of another origin.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = json.loads(file.metadata()[_KEY])
            return ClassVectors({name: file.get_tensor(name) for name in file.keys()}, tuple(names))  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except (KeyError, ValueError, TypeError):
        raise CheckpointError(f"{path} was not written by nearfar.models.save_class_vectors") from None
