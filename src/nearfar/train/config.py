"""A run's configuration: what may be said, what it means, and what is wrong with what was said.

``Config()`` is what a YAML file starts from. ``default.yaml`` beside this module is what ``nearfar train`` without a
file starts from: a small network tuned for the embedded data.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nearfar import yaml12
from nearfar.errors import ConfigError
from nearfar.train.folder import RunFolder

Layer = tuple[str, Mapping[str, Any]]
"""What was said and where: a name for messages, and nested data."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Every key is known, every value has its type, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    """What is trained and evaluated on."""

    #: ``emoji``, or a folder root/class/file or root/split/class/file.
    source: str = "emoji"
    #: ``2/4``: of the classes that are not for the test, the second of four parts validates and the others are trained
    #: on; None: the source's own division. Classes are divided by their names, always alike.
    fold: Annotated[str, Field(pattern=r"^[1-9]\d{0,3}/[1-9]\d{0,3}$")] | None = None
    #: Worker processes that load images; None: none for data in memory, else one for each core up to 8.
    workers: Annotated[int, Field(ge=0)] | None = None


class Model(Section):
    """Arguments of :func:`nearfar.models.create_model`."""

    name: str = "test_resnet"
    embedding_size: _Count | None = 128
    head: Literal["linear", "bn_neck", "none"] = "linear"
    pool: Literal["model", "flatten"] = "model"
    normalize: bool = False
    #: Side of the images the network sees, or [height, width], in pixels; None: what the backbone was made for.
    image_size: _Count | Annotated[tuple[_Count, _Count], Field(strict=False)] | None = None
    #: How pixels are scaled and ordered, for weights of face recognition; None: as the backbone says.
    pixels: Literal["insightface", "mxnet", "sphereface", "adaface"] | None = None
    pretrained: bool = False
    checkpoint: str | None = None
    #: Further arguments of timm's.
    options: dict[str, Any] = {}


class Augmentation(Section):
    """Arguments of :class:`nearfar.data.Augment`, which says what they mean."""

    zoom: Annotated[tuple[float, float], Field(strict=False)] = (0.8, 1.2)
    aspect: Annotated[float, Field(ge=1)] = 1.15
    rotation: Annotated[float, Field(ge=0, lt=180)] = 15.0
    shift: _Share = 0.1
    flip: _Share = 0.0
    brightness: _Share = 0.2
    contrast: _Share = 0.2
    saturation: _Share = 0.2
    #: The grey that comes in from outside; ``border`` continues the border; ``auto``: white for emoji, else border.
    fill: _Share | Literal["auto", "border"] = "auto"


class Batch(Section):
    """Every batch has P classes and K images of each."""

    classes_per_batch: _Count = 32
    samples_per_class: Annotated[int, Field(ge=2)] = 4
    #: Images whose activations are in memory at once, as :func:`nearfar.models.in_chunks` does; None: the whole batch.
    chunk: Annotated[int, Field(ge=2)] | None = None

    @property
    def drawn(self) -> dict[str, int]:
        """What a sampler is to know."""
        return {"classes_per_batch": self.classes_per_batch, "samples_per_class": self.samples_per_class}


class Mining(Section):
    """What batches are made of besides chance."""

    #: In epochs: so often the whole training set is searched for what is hard to tell apart, of which batches are made
    #: from then on; None: never.
    offline: _Count | None = None
    #: A negative nearer than this, on normalised embeddings, is taken for a near-duplicate and left out.
    absolute_margin: _NotNegative = 0.0
    #: As is one nearer than so many times the anchor's farthest positive.
    relative_margin: _NotNegative = 0.0


class Optimizer(Section):
    """One optimiser for the model and for what the criterion learns."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: _Positive = 1e-3
    #: For matrices and kernels; biases and normalisations have none.
    weight_decay: _NotNegative = 0.01
    #: Of SGD, in Nesterov's form.
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    #: The most that the norm of all gradients together may be, those of the criterion's parameters too: larger ones are
    #: scaled down to it; None: they may have any.
    clip: _Positive | None = None
    #: Of the criterion's own parameters (class weights, proxies); None: the model's, times what each loss asks for.
    criterion_lr: _Positive | None = None


class Head(Section):
    """How the class vectors of the criterion are held."""

    #: Whether each of the devices has the vectors of some of the classes.
    shard: bool = False
    #: The share of the classes that are not in the batch which a step takes besides those that are.
    sample_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    #: Whether the backward pass steps them itself, so that their gradient is never held; of SGD.
    fused: bool = False
    #: Where they start: ``drawn``, as each loss draws its own; ``class_means``, at the means of the untrained network's
    #: embeddings of their classes.
    start: Literal["drawn", "class_means"] = "drawn"


class Schedule(Section):
    """The factor on the learning rates, a function of the share of the run that is done."""

    name: Literal["cosine", "linear", "step", "constant"] = "cosine"
    #: The share of the run over which the factor rises to 1.
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    #: Of ``step``: at these shares of the run the factor is multiplied with ``gamma``.
    milestones: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(strict=False)] = (0.6, 0.85)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1


class Validation(Section):
    """How the weights that are kept are chosen."""

    #: In epochs; the last step is validated too.
    every: _Count = 5
    #: The weights with the largest value on the validation classes are kept.
    metric: Literal["map@r", "recall@1", "recall@5", "r_precision"] = "map@r"


class Config(Section):
    """Everything a run depends on."""

    criterion: str | dict[str, Any] = "sup_con"
    epochs: _Count = 20
    #: None: as many batches as the training classes fill.
    steps_per_epoch: _Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    #: How many processes share a batch, each on a device of its own.
    devices: _Count = 1
    precision: Literal["32", "bf16", "16"] = "32"
    #: In steps.
    checkpoint_every: _Count = 50
    #: In steps.
    log_every: _Count = 10
    data: Data = Data()
    model: Model = Model()
    augment: Augmentation = Augmentation()
    batch: Batch = Batch()
    head: Head = Head()
    mining: Mining = Mining()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    validation: Validation = Validation()

    @classmethod
    def of(cls, *layers: Layer | Mapping[str, Any]) -> Self:
        """Read a configuration from layers of nested data, of which a later one wins key by key.

        A layer is a mapping, or a pair of a name for messages and a mapping.

        Raises
        ------
        ConfigError
            A key is unknown or a value unusable; the message says which, where, and what is meant.
        """
        merged: dict[str, Any] = {}
        named = [("the configuration", layer) if isinstance(layer, Mapping) else layer for layer in layers]
        for name, data in named:
            if not isinstance(data, Mapping):
                raise ConfigError(f"{name}: a configuration is a mapping of keys, not {data!r}")
            if odd := [key for key in _keys(data) if not isinstance(key, str)]:
                raise ConfigError(f"{name}: a key is a text, not {odd[0]!r}")
            merged = merge(merged, data)
        if isinstance(merged.get("precision"), int):
            merged["precision"] = str(merged["precision"])  # YAML reads 32 as a number
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            problems = [_sentence(problem, named) for problem in error.errors()]
            # Of the members of a union pydantic reports each, and each becomes the same sentence.
            raise ConfigError("; ".join(dict.fromkeys(problems))) from None

    def to_dict(self) -> dict[str, Any]:
        """As nested plain data."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """As a YAML document."""
        return yaml12.dump(self.to_dict())


def default_layer() -> Layer:
    """What ``nearfar train`` starts from where it is given no file."""
    text = (files("nearfar.train") / "default.yaml").read_text(encoding="utf-8")
    return "the default configuration", yaml12.load(text, source="default.yaml")


def own_pooling(said: Sequence[Layer]) -> list[Layer]:
    """Where another backbone than the default one is asked for, leave the pooling of its features to it."""
    name = default_layer()[1]["model"]["name"]
    asked = [data["model"]["name"] for _, data in said if _has(data, ("model", "name"))]
    return [("another model", {"model": {"pool": "model"}})] if asked and asked[-1] != name else []


def file_layer(path: Path) -> Layer:
    """Read a YAML file.

    Raises
    ------
    ConfigError
        It is missing, unreadable or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"the configuration file {path} cannot be read: {why}") from None
    return str(path), yaml12.load(text, source=str(path)) or {}


def saved_config(folder: RunFolder) -> Config:
    """The configuration that a run was started with."""
    return Config.of(file_layer(folder.config))


def set_layer(assignment: str) -> Layer:
    """Read ``key.key=value``; the value is YAML.

    Raises
    ------
    ConfigError
        There is no key, or no ``=``.
    """
    key, equals, value = assignment.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ConfigError(f"--set takes key=value, such as --set optimizer.lr=1e-3, not {assignment!r}")
    return f"--set {key.strip()}", nested(key.strip(), yaml12.load(value, source=f"--set {key.strip()}"))


def nested(key: str, value: Any) -> dict[str, Any]:
    """``nested("a.b", 1)`` is ``{"a": {"b": 1}}``."""
    for part in reversed(key.split(".")):
        value = {part.strip(): value}
    return dict(value)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, key by key where both have a section."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        # A recipe as data replaces another as a whole: its keys are no settings of their own.
        if isinstance(below, Mapping) and isinstance(value, Mapping) and key != "criterion":
            value = merge(below, value)
        merged[key] = value
    return merged


def differences(old: Config, new: Config) -> list[str]:
    """``key: old → new`` for each leaf in which two configurations differ."""
    before, after = dict(leaves(old.to_dict())), dict(leaves(new.to_dict()))
    keys = dict.fromkeys([*before, *after])
    return [f"{key}: {before.get(key)} → {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _keys(data: Mapping[Any, Any]) -> Iterator[Any]:
    for key, value in data.items():
        yield key
        if isinstance(value, Mapping):
            yield from _keys(value)


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each key of nested data that is no section, such as ``optimizer.lr``, with its value; a recipe is one value."""
    for key, value in data.items():
        if isinstance(value, Mapping) and key != "criterion":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _known_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _known_keys(field.annotation, f"{prefix}{name}.")


def _sentence(problem: Any, layers: Sequence[Layer]) -> str:
    # What follows the key in a location names a member of a union or an item of a list.
    known = set(_known_keys())
    path: list[str] = []
    for part in problem["loc"]:
        if ".".join([*path, str(part)]) not in known and problem["type"] != "extra_forbidden":
            break
        path.append(str(part))
    key = ".".join(path)
    where = next((name for name, data in reversed(layers) if _has(data, path)), "")
    # `--set key` says the key already.
    prefix = f"{where}: " if where and not where.startswith(("--", "the default")) else ""
    if problem["type"] == "extra_forbidden":
        return f"{prefix}unknown key {key}; {_closest(key)}"
    if problem["type"] in ("model_type", "model_attributes_type"):
        section = ", ".join(name.removeprefix(f"{key}.") for name in _known_keys() if name.startswith(f"{key}."))
        return f"{prefix}{key} is a section with the keys {section}, not {problem['input']!r}"
    return f"{prefix}{key} is {problem['input']!r}, but must be {_wanted(problem, key)}"


def _has(data: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return False
        data = data[part]
    return True


def _closest(key: str) -> str:
    known = list(_known_keys())
    section, _, leaf = key.rpartition(".")
    same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    # By the last part alone: what stands before it is the same in all, and would make any two of them alike.
    close = [
        f"{section}.{found}" if section else found
        for found in difflib.get_close_matches(leaf, [name.rpartition(".")[2] for name in siblings], n=1, cutoff=0.6)
    ]
    found = same_leaf or close or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if found:
        return f"did you mean {found[0]}?"
    return f"{section or 'a configuration'} has {', '.join(name.rpartition('.')[2] for name in siblings)}"


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
_BOUNDS = {"greater_than": ("gt", "above"), "greater_than_equal": ("ge", "at least")} | {
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def _wanted(problem: Any, key: str) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if key == "criterion":
        return "a recipe: a text such as 'sup_con(temperature=0.1)', or a mapping with the key terms"
    if key == "model.image_size":
        return "a number of pixels, or [height, width]"
    if key == "augment.fill":
        return "auto, border, or a grey from 0 to 1"
    if key == "data.fold":
        return "a part of so many, such as 2/4"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {context[name]}"
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "").replace('"', "")
    if kind in ("missing", "too_long", "too_short"):
        return "a list of two numbers" if key == "augment.zoom" else "a list"
    return _TYPES.get(kind, str(problem["msg"]))
