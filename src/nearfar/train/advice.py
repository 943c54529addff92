"""What to train with, from what there is: every setting with the reason for it, and all of them as a YAML file."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nearfar import yaml12
from nearfar.errors import ConfigError
from nearfar.registry import Registry
from nearfar.train.survey import Survey

#: Images a batch, about.
_BATCH = 128
#: Steps a run, about; few images are not seen more often than _EPOCHS[1] times, many not less often than _EPOCHS[0].
_STEPS = 2000
_EPOCHS = (20, 100)
#: From so many images a class on, a vector of each class is learned rather than pairs compared.
_MANY = 20
#: The sides that backbones and data sets of the field have, in pixels.
_SIDES = (32, 64, 112, 160, 224)
#: Images that are so many times as long one way as the other are not cut to squares.
_UPRIGHT = 1.5
#: Up to so many images to train on, this backbone: its million parameters stand behind it.
_BACKBONES = ((1_000, "test_resnet", 0.4), (20_000, "resnet10t", 4.9), (200_000, "resnet18", 11.2))
_LARGEST = ("resnet50", 23.5)


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting and why it is as it is.

    Parameters
    ----------
    key
        Of the configuration, with dots.
    value
        Plain data.
    why
        A sentence without its full stop.
    """

    key: str
    value: Any
    why: str


def advise(found: Survey, registry: Registry) -> list[Choice]:
    """Choose what to begin with; parts are of the plugins that are active.

    Raises
    ------
    ConfigError
        No plugin has a loss that would do.
    """
    p, k = _batch(found)
    steps = max(1, found.trained // (p * k))
    epochs = min(max(round(_STEPS / steps), _EPOCHS[0]), _EPOCHS[1])
    every = max(1, epochs // 20)
    return [
        _criterion(found, registry),
        Choice("epochs", epochs, f"{epochs * steps} steps in all; look at the validation before training longer"),
        Choice("steps_per_epoch", steps, f"as many batches as the {found.trained} images to train on fill"),
        Choice("data.source", found.source, _division(found)),
        *_fold(found),
        Choice("data.workers", None, "a process to load images for each core, up to 8"),
        *_model(found),
        Choice("augment.flip", 0.0, "0.5 where a mirror image is of the same class, as of faces and products"),
        Choice("batch.classes_per_batch", p, f"P, of {len(found.counts)} training classes: {p} × {k} images a batch"),
        Choice("batch.samples_per_class", k, f"K; half of the classes have {found.typical} images or more"),
        Choice("optimizer.lr", 1e-3, "of AdamW for a network that starts untrained; 1e-4 for a pretrained one"),
        Choice("validation.every", every, "epochs; the weights that are best on the validation classes are kept"),
    ]


def remarks(found: Survey) -> list[str]:
    """What one should know of the data, a sentence each, without its full stop."""
    said = []
    if max(found.counts) > 10 * found.typical:
        said.append(
            f"the largest class has {max(found.counts)} images and the middle one {found.typical}; batches draw "
            "classes equally often, so the images of small classes are seen more often"
        )
    if found.side < _SIDES[0]:
        said.append(f"half of the images are {found.side} pixels high or wide, or less, and are enlarged")
    if len(found.counts) < 10:
        said.append(f"{len(found.counts)} classes to train on are few: what is learned may not hold for unseen ones")
    return said


def _batch(found: Survey) -> tuple[int, int]:
    """P and K: four images a class and 32 classes where there are so many, more images of fewer classes else."""
    p = min(_BATCH // 4, len(found.counts))
    return p, max(2, min(_BATCH // p, found.typical))


def _criterion(found: Survey, registry: Registry) -> Choice:
    counted = f"half of the classes have {found.typical} images or more"
    heads = (
        "arcface(margin=0.3, scale='auto')",
        f"{counted}, enough to learn a vector of each; scale='auto' fits the scale to the number of classes",
    )
    sets = ("sup_con(temperature=0.1)", f"{counted}, which compares each with all others of its class in the batch")
    triplets = ("triplet(margin=0.2, miner=semihard)", f"{counted}, so that an image has a positive or two")
    few = (triplets, sets) if found.typical < 4 else (sets, triplets)
    order = (heads, *few) if found.typical >= _MANY else few
    missing: list[str] = []
    for recipe, why in order:
        name = recipe.partition("(")[0]
        if "loss" in registry.kinds_of(name):
            instead = f"; {', '.join(missing)} would come first, and no active plugin has it" if missing else ""
            return Choice("criterion", recipe, why + instead)
        missing.append(name)
    raise ConfigError(f"no active plugin has {' or '.join(missing)}: install nearfar-pair, and nearfar-margin with it")


def _division(found: Survey) -> str:
    held = f"{found.images} images of {found.classes} classes"
    if found.divided:
        return f"{held}, divided as the data say: {len(found.counts)} classes to train on"
    return f"{held}; {len(found.counts)} classes are for training, the others for validation and test"


def _fold(found: Survey) -> Iterator[Choice]:
    if found.fold is not None:
        part, of = found.fold.split("/")
        held = f"part {part} of {of} of their training classes, by their names, validates"
        yield Choice("data.fold", found.fold, f"the data have no split for validation: {held}")


def _model(found: Survey) -> Iterator[Choice]:
    name, millions = next(((name, size) for most, name, size in _BACKBONES if found.trained <= most), _LARGEST)
    embedding = 512 if len(found.counts) >= 1000 else 128
    side = max((side for side in _SIDES if side <= found.side), default=_SIDES[0])
    yield Choice("model.name", name, f"{millions} million parameters for {found.trained} images to train on")
    yield Choice("model.pretrained", False, "true downloads timm's weights, and is worth most where images are few")
    yield _image_size(found, side)
    yield Choice("model.embedding_size", embedding, f"numbers an image, for {len(found.counts)} classes to train on")


def _image_size(found: Survey, side: int) -> Choice:
    """Squares, unless half of the images are one and a half times as long one way as the other."""
    why = f"pixels; the shorter side of half of the images is {found.side} or more"
    long = max(found.shape, 1 / found.shape)
    if long < _UPRIGHT:
        return Choice("model.image_size", side, why)
    longer = round(2 * min(long, 4)) * side // 2
    size = [longer, side] if found.shape > 1 else [side, longer]
    more = f"{long:.2g} times as {'high as wide' if found.shape > 1 else 'wide as high'}"
    return Choice("model.image_size", size, f"height and width in {why}, and half of them are {more} or more")


def document(choices: Sequence[Choice], title: Sequence[str], command: str) -> str:
    """Write the choices as YAML, each below its reason; ``title`` are the comments above all, then what trains them."""
    lines = [line for text in title for line in _comment(text)]
    lines.append(f"# To train: {_printable(command)}")  # in one line, to be copied
    for section, group in itertools.groupby(choices, lambda choice: choice.key.rpartition(".")[0]):
        indent = "  " if section else ""
        lines += ["", f"{section}:"] if section else [""]
        for choice in group:
            lines += [indent + line for line in _comment(choice.why)]
            plain = yaml12.dump({choice.key.rpartition(".")[2]: choice.value})
            lines += [indent + line for line in plain.splitlines()]
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    """What a name of a file brings along must not end a comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(_printable(text), 100, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
