"""What a run works on, made from its configuration so that whatever is wrong is found before the first step."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nearfar.build import compose
from nearfar.data import NAMED, Augment, ImageSource, PKSampler
from nearfar.data.size import input_size
from nearfar.errors import ConfigError, NearfarError
from nearfar.models import EmbeddingModel, create_model
from nearfar.nn import Criterion, counted
from nearfar.nn.reducers import NoReduction
from nearfar.recipe import Recipe
from nearfar.told import told
from nearfar.train.checkpoint import data_digest
from nearfar.train.config import Config
from nearfar.train.folder import RunFolder
from nearfar.train.fused import check_fused, fused_optimizers
from nearfar.train.optimizer import make_optimizer, parameter_groups
from nearfar.train.progress import Narrator
from nearfar.train.ranks import Ranks, give_whole_batches
from nearfar.train.sampled import row_optimizers, sample_classes
from nearfar.train.shards import shard_classes
from nearfar.train.sources import FROM_PYTHON, Sources, loader_workers, open_sources
from nearfar.train.starts import start_at_class_means, startable

# What a key is for; nearfar.data.sampling has the numbers below.
MODEL_KEY, CRITERION_KEY, STEP_KEY, SAMPLE_KEY = 100, 101, 102, 103


@dataclass(slots=True)
class Job:
    """Everything a loop works on."""

    config: Config
    folder: RunFolder
    model: EmbeddingModel
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    augment: Augment
    train: ImageSource
    validation: ImageSource
    device: torch.device
    workers: int
    steps: int
    steps_per_epoch: int
    digest: str
    narrator: Narrator
    ranks: Ranks
    #: How far it is: the steps done, the seconds they took, the best validation.
    step: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    #: Of the steps of the epoch that is not done yet.
    losses: list[Any] = field(default_factory=list)
    interrupted: bool = False
    terminated: bool = False


def anchored(config: Config) -> Config:
    """The configuration with whole paths, so that the run goes on from any working directory."""

    def whole(path: str | None) -> str | None:
        return str(Path(path).resolve()) if path is not None and path not in NAMED and Path(path).exists() else path

    data = config.data.model_copy(update={"source": whole(config.data.source)})
    model = config.model.model_copy(update={"checkpoint": whole(config.model.checkpoint)})
    return config.model_copy(update={"data": data, "model": model})


def prepare(
    config: Config, data: Any, narrator: Narrator, *, checked: bool = False, begins: bool = True
) -> tuple[Job, Sources]:
    """Make everything a run needs, so that whatever is wrong is found before the first step.

    Parameters
    ----------
    config : Config
    data : optional
        What came from Python.
    narrator : Narrator
    checked : bool
        Every image was read already, as before another run on the same data; none is read again.
    begins : bool
        Whether its class vectors start as configured; where they are those of a checkpoint, or nothing is trained, a
        pass over the images is saved.
    """
    device = resolve_device(config.device)
    ranks = Ranks.join(config.devices, cuda=device.type == "cuda")
    config = config.model_copy(update={"devices": ranks.world})
    check_devices(config)
    check_fused(config)
    narrator.quiet = narrator.quiet or not ranks.first
    if config.precision == "16" and device.type == "cpu":
        raise ConfigError("precision 16 needs a GPU: use bf16 or 32 on a CPU")
    Recipe.of(config.criterion)  # a recipe that cannot be read is told before the data is
    model = build_model(config)
    if data is not None:
        source = f"{FROM_PYTHON}{type(data).__name__}"
        config = config.model_copy(update={"data": config.data.model_copy(update={"source": source})})
    sources = open_sources(config.data.source, data, image_size=input_size(model.data_config), fold=config.data.fold)
    criterion = build_criterion(config, sources.train, model)
    # Made for what it checks: that there are as many classes as a batch has.
    sampler = PKSampler(sources.train.labels, **config.batch.drawn, steps=0, seed=config.seed)
    if not checked:
        sources.check()
    _rehearse(criterion, model, sources.train, config)
    steps_per_epoch = config.steps_per_epoch or sampler.steps_per_epoch
    if device.type == "cpu":
        model = model.to(memory_format=torch.channels_last)  # convolutions are faster so
    if ranks.world > 1:
        give_whole_batches(criterion)
    workers = loader_workers(config.data.workers, sources.train)
    if config.head.start == "class_means":
        startable(criterion)
        if begins:
            start_at_class_means(criterion, model, sources.train, device=device, workers=workers)
    if config.head.shard and ranks.world > 1:  # all of them in one process is what a head is without
        shard_classes(criterion, device)
    if config.head.sample_rate < 1:
        sample_classes(criterion, config.head.sample_rate, counted.key(config.seed, SAMPLE_KEY))
    groups = parameter_groups(model, criterion, config.optimizer)
    fused: list[torch.optim.Optimizer] = []
    if config.head.fused:
        groups, fused = fused_optimizers(groups, criterion, config.optimizer.momentum)
    optimizer = make_optimizer(groups, config.optimizer, row_optimizers(criterion), fused)
    criterion.follow(optimizer)
    job = Job(
        config=config,
        folder=RunFolder("."),
        model=model.train(),
        criterion=criterion.train(),
        optimizer=optimizer,
        augment=_augmentation(config, model),
        train=sources.train,
        validation=sources.validation,
        device=device,
        workers=workers,
        steps=config.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        digest=data_digest(sources.train),
        narrator=narrator,
        ranks=ranks,
    )
    return job, sources


def check_devices(config: Config) -> None:
    """Refuse more devices than can share a batch, or the head.

    Raises
    ------
    ConfigError
        They cannot.
    """
    images = config.batch.classes_per_batch * config.batch.samples_per_class
    if images % config.devices:
        raise ConfigError(
            f"a batch of {config.batch.classes_per_batch} classes × {config.batch.samples_per_class} images cannot be "
            f"divided among {config.devices} devices: set batch.classes_per_batch to a multiple of {config.devices}"
        )
    if config.head.sample_rate < 1 and config.devices > 1 and not config.head.shard:
        raise ConfigError(
            f"head.sample_rate is {config.head.sample_rate} on {config.devices} devices, of which each would hold and "
            "step on the vectors of all classes: set head.shard to true"
        )


def resolve_device(name: str) -> torch.device:
    """``auto``: a GPU where there is one.

    Raises
    ------
    ConfigError
        A GPU was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, and torch finds no GPU here: use cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def build_model(config: Config) -> EmbeddingModel:
    """The network before training: a function of the configuration, its weights of the seed."""
    arguments = config.model.model_dump(exclude={"options"})
    options = config.model.options
    if taken := sorted(set(options) & {*arguments, "in_chans"}):
        raise ConfigError(f"model.options.{taken[0]} is not passed on to timm: set model.{taken[0]} instead")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counted.key(config.seed, MODEL_KEY))
        try:
            model = create_model(**arguments, **options)
        except (MemoryError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"the model {config.model.name} cannot be made as configured: {reason}") from error
    _try(model, config)
    return model


@torch.no_grad()
def _try(model: EmbeddingModel, config: Config) -> None:
    """Have the network look at one image, so that what it cannot take is found before the data is read."""
    size = input_size(model.data_config)  # a run's images are RGB
    was_training = model.training
    try:
        model.eval()(torch.zeros(1, 3, *size))
    except Exception as error:  # whatever a backbone raises on a size or an argument it cannot use
        raise ConfigError(
            f"the model {config.model.name} as configured cannot take images of {size}: {told(error)}"
        ) from error
    finally:
        model.train(was_training)


def _keeps(reducer: Any) -> bool:
    """Whether a reducer gives every term, as nearfar's ``none`` and pytorch-metric-learning's do."""
    return isinstance(reducer, NoReduction) or type(reducer).__name__ == "DoNothingReducer"


def build_criterion(config: Config, train: ImageSource, model: EmbeddingModel) -> Criterion:
    """The criterion for these classes and embeddings, its weights a function of the seed.

    Raises
    ------
    ConfigError
        It judges something else than embeddings.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counted.key(config.seed, CRITERION_KEY))
        criterion = compose(config.criterion, num_classes=train.num_classes, embedding_size=model.embedding_size)
    if kept := [name for name, loss in criterion.losses.items() if _keeps(getattr(loss, "reducer", None))]:
        raise ConfigError(
            f"criterion {criterion.recipe} leaves {', '.join(kept)} unreduced, and a training run needs one number: "
            "give it a reducer that reduces, such as mean"
        )
    if foreign := [name for name in criterion.inputs if name not in ("embeddings", "labels")]:
        raise ConfigError(
            f"criterion {criterion.recipe} wants {', '.join(foreign)}, and a training run gives embeddings and "
            "labels: nearfar list --inputs embeddings shows what fits"
        )
    return criterion


def _rehearse(criterion: Criterion, model: EmbeddingModel, train: ImageSource, config: Config) -> None:
    """Have a copy of the criterion judge a batch of noise, so that what cannot judge is found before the first step.

    Raises
    ------
    ConfigError
        It cannot.
    """
    if sum(p.numel() for p in criterion.parameters()) > 2**26:
        return  # a copy of so many class weights would cost more than the first step
    count = config.batch.classes_per_batch * config.batch.samples_per_class
    noise = torch.randn(count, model.embedding_size, generator=torch.Generator().manual_seed(config.seed))
    labels = torch.arange(count) // config.batch.samples_per_class % train.num_classes
    try:
        # Some of pytorch-metric-learning's draw from the global generator.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy.deepcopy(criterion)(noise, labels)
    except NearfarError as error:
        raise ConfigError(f"criterion {criterion.recipe} cannot judge a batch: {error}") from error
    except Exception as error:  # whatever a part of somebody else's raises
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise ConfigError(f"criterion {criterion.recipe} cannot judge a batch: {reason}") from error


def _augmentation(config: Config, model: EmbeddingModel) -> Augment:
    arguments = config.augment.model_dump()
    if arguments["fill"] == "auto":
        arguments["fill"] = 1.0 if config.data.source == "emoji" else None
    elif arguments["fill"] == "border":
        arguments["fill"] = None
    about = model.data_config
    return Augment(input_size(about), mean=about["mean"], std=about["std"], **arguments)
