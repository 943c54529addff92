"""``train`` and ``resume``: a configuration becomes a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nearfar.errors import CheckpointError, ConfigError, DataError
from nearfar.files import write_text
from nearfar.models import ClassVectors, EmbeddingModel, load_class_vectors, load_model
from nearfar.nn import Criterion
from nearfar.recipe import Recipe
from nearfar.train.checkpoint import Checkpoint, restore
from nearfar.train.config import Config, Layer, default_layer, differences, file_layer, saved_config
from nearfar.train.evaluation import data_facts, network_table, table_title
from nearfar.train.folder import RunFolder
from nearfar.train.job import Job, anchored, check_devices, prepare, resolve_device
from nearfar.train.optimizer import told_rates
from nearfar.train.progress import Narrator
from nearfar.train.ranks import Ranks
from nearfar.train.shards import rows_of_states, rows_of_tensors, told_whole
from nearfar.train.signals import Terminated
from nearfar.train.sources import FROM_PYTHON, Sources
from nearfar.train.table import render, told_no_better
from nearfar.words import number_of

# What may differ in a run that goes on, because no number of it depends on them on the same machine.
# The devices are no matter of the batch, which they share, and of rounding alone.
_FREE = ("device", "devices", "checkpoint_every", "data.workers")


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path
        Its folder.
    config
        What it was trained with.
    metrics
        What ``metrics.json`` holds: ``metrics["test"]["trained"]["recall@1"]`` …
    """

    path: Path
    config: Config
    metrics: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Read a finished run.

        Raises
        ------
        CheckpointError
            There is none, or it is not finished.
        """
        folder = RunFolder.open(path)
        try:
            metrics = json.loads(folder.metrics.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path} is not finished: nearfar train --resume {path}") from None
        except ValueError as error:
            raise CheckpointError(f"{folder.metrics} is damaged: {error}") from error
        return cls(folder.path, saved_config(folder), metrics)

    def model(self) -> EmbeddingModel:
        """Load the best weights, on the CPU and in evaluation mode."""
        return load_model(RunFolder(self.path).model)

    def class_vectors(self) -> ClassVectors:
        """Load the vectors of the training classes that belong to the best weights: of heads, proxies and centres.

        Raises
        ------
        CheckpointError
            The criterion has none.
        """
        return load_class_vectors(RunFolder(self.path).classes)

    def table(self) -> str:
        """The table it ended with."""
        return render(self.metrics["test"], table_title(self.metrics["data"]))


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the run was made to go on from where it is.

    Attributes
    ----------
    folder : RunFolder
        Where it goes on.
    terminated : bool
        Whether it was SIGTERM.
    """

    def __init__(self, folder: RunFolder, step: int, steps: int, *, terminated: bool = False) -> None:
        self.folder, self.terminated = folder, terminated
        how = f"nearfar train --resume {folder}" if folder.checkpoint.exists() else "it has no checkpoint yet"
        super().__init__(f"stopped after step {step} of {steps}; to go on: {how}")


def train(
    config: Config | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    data: Any = None,
    output: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> Run:
    """Train an embedding, keep the weights that are best on the validation classes, and score the test classes.

    Parameters
    ----------
    config : Config, mapping or path, optional
        Nested data as a YAML file has it, or the path of one; without it, the default run on the embedded emoji.
    data : optional
        In place of ``data.source``: a dataset of (image, label), whose classes are divided, or a mapping with one for
        each of ``train``, ``validation`` and ``test``.
    output : path, optional
        The run folder; by default ``runs/<date>-<time>-<criterion>``.
    quiet : bool
        Tell nothing on standard output.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError, DataError, RecipeError, ArgumentError, UnknownPart, CheckpointError
        Something does not fit; found before the first step.
    Interrupted
        Ctrl-C or SIGTERM; a checkpoint was written.
    """
    read = as_config(config)
    if isinstance(data, str | os.PathLike):  # a source is a source, wherever it is said
        read, data = read.model_copy(update={"data": read.data.model_copy(update={"source": str(data)})}), None
    return start(read, data=data, output=output, narrator=Narrator(quiet=quiet))


def as_config(config: Config | Mapping[str, Any] | str | os.PathLike[str] | None) -> Config:
    """Read a configuration in any form."""
    if isinstance(config, Config):
        return config
    if config is None:
        return Config.of(default_layer())
    if isinstance(config, Mapping):
        return Config.of(("config", config))
    if not isinstance(config, str | os.PathLike):
        raise ConfigError(f"a configuration is a mapping, a Config or the path of a YAML file, not {config!r}")
    return Config.of(file_layer(Path(config)))


def start(config: Config, *, data: Any = None, output: Any = None, narrator: Narrator) -> Run:
    """Begin a run, in as many processes as it has devices."""
    if _alone(config):
        return _launched("start", config, data, output, narrator)
    begun = time.monotonic()
    job, sources = prepare(anchored(config), data, narrator)
    criterion = config.criterion if isinstance(config.criterion, str) else "recipe"
    folder = RunFolder(job.ranks.told(RunFolder.create(output, criterion).path if job.ranks.first else None))
    job.folder = folder
    with _held(folder, job.ranks):
        if job.ranks.first:
            write_text(folder.recipe, _recipe_yaml(job.criterion))
            write_text(folder.config, job.config.to_yaml())
            folder.point_latest()
        narrator.say(f"{folder}: {_described(job, sources)}")
        if rates := told_rates(job.criterion, job.config.optimizer):
            narrator.say(rates)
        if kept := told_whole(job.criterion):
            narrator.say(kept)
        return _run(job, sources, begun)


def resume(path: str | os.PathLike[str], *layers: Layer, data: Any = None, narrator: Narrator | None = None) -> Run:
    """Go on with a run from its last checkpoint, to the same end as if it had not stopped.

    Parameters
    ----------
    path : path
        The run folder.
    *layers
        What was said besides; it must agree with the run.
    data : optional
        As in :func:`train`, where the run had it.
    narrator : Narrator, optional

    Raises
    ------
    ConfigError
        The configuration differs from the run's, or another process is training in its folder.
    CheckpointError
        There is no checkpoint, or it is another model's.
    """
    begun = time.monotonic()
    folder = RunFolder.open(path)
    saved = saved_config(folder)
    narrator = narrator or Narrator()
    config = anchored(Config.of((str(folder.config), saved.to_dict()), *layers))
    changed = [text for text in differences(saved, config) if not text.startswith(tuple(f"{key}:" for key in _FREE))]
    if changed:
        raise ConfigError(
            f"{folder} cannot go on with another configuration ({'; '.join(changed)}): leave that out, or start a new "
            "run"
        )
    if _alone(config):
        return _launched("resume", config, data, folder.path, narrator)
    return _go_on(folder, config, data, narrator, begun)


def _go_on(folder: RunFolder, config: Config, data: Any, narrator: Narrator, begun: float) -> Run:
    ranks = Ranks.join(config.devices, cuda=resolve_device(config.device).type == "cuda")
    with _held(folder, ranks):
        checkpoint = Checkpoint.read(folder.checkpoint)
        job, sources = prepare(config, data, narrator, begins=False)
        job.folder = folder
        restore_job(job, checkpoint)
        if ranks.first:
            folder.point_latest()
        job.narrator.say(f"{folder}: going on after step {job.step} of {job.steps}")
        return _run(job, sources, begun)


def _held(folder: RunFolder, ranks: Ranks) -> contextlib.AbstractContextManager[None]:
    """Keep other runs out of the folder: the first rank's business."""
    return folder.held() if ranks.first else contextlib.nullcontext()


def _alone(config: Config) -> bool:
    """Whether this process has to start those that the run is for."""
    return config.devices > 1 and not dist.is_initialized() and "TORCHELASTIC_RUN_ID" not in os.environ


def _launched(how: str, config: Config, data: Any, output: Any, narrator: Narrator) -> Run:
    """Do all of it in processes of its own, one a device."""
    from nearfar.train.launch import launch

    cuda = resolve_device(config.device).type == "cuda"
    if cuda and config.devices > torch.cuda.device_count():
        raise ConfigError(f"devices is {config.devices}, and torch finds {torch.cuda.device_count()} GPUs here")
    check_devices(config)  # before as many processes are there
    path = launch(_in_a_rank, config.devices, how, config, data, output, narrator.quiet, cuda=cuda)
    return Run.open(path)


def _in_a_rank(how: str, config: Config, data: Any, output: Any, quiet: bool) -> Path:
    warnings.showwarning = _once_a_run
    narrator = Narrator(quiet=quiet)
    if how == "start":
        return start(config, data=data, output=output, narrator=narrator).path
    return _go_on(RunFolder(output), config, data, narrator, time.monotonic()).path


def _once_a_run(message: Any, *_: Any, **__: Any) -> None:
    """Tell a warning as the command line does, and one of all ranks once."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(f"nearfar: warning: {message}", file=sys.stderr, flush=True)


def restore_job(job: Job, checkpoint: Checkpoint) -> None:
    """Put a job where a checkpoint of it is.

    Raises
    ------
    CheckpointError
        The checkpoint is of other data, another model or another criterion.
    """
    path = job.folder.checkpoint
    if checkpoint.data != job.digest:
        raise CheckpointError(
            f"the training data is not what {path} was trained on: its classes, labels or images changed"
        )
    if checkpoint.steps != job.steps:
        raise CheckpointError(f"{path} is of a run of {checkpoint.steps} steps, and this one has {job.steps}")
    restore(job.model, checkpoint.model, what="model", path=path)
    restore(job.criterion, rows_of_tensors(job.criterion, checkpoint.criterion), what="criterion", path=path)
    learned = [parameter for group in job.optimizer.param_groups for parameter in group["params"]]
    try:
        job.optimizer.load_state_dict(rows_of_states(learned, checkpoint.optimizer))
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is of another optimizer than the configuration describes: {error}") from error
    job.step, job.seconds = checkpoint.step, checkpoint.seconds
    job.best, job.scaler, job.losses = dict(checkpoint.best), dict(checkpoint.scaler), list(checkpoint.losses)


def _recipe_yaml(criterion: Criterion) -> str:
    return str(criterion.recipe.to_yaml())


def _described(job: Job, sources: Sources) -> str:
    config = job.config
    return (
        f"{config.model.name} with {criterion_text(config)} on {sources.train.num_classes} classes, "
        f"{number_of(config.epochs, 'epoch')} of {number_of(job.steps_per_epoch, 'step')} of "
        f"{config.batch.classes_per_batch * config.batch.samples_per_class} images on the {job.device.type}"
    )


def criterion_text(config: Config) -> str:
    """The criterion as a recipe is written."""
    return str(Recipe.of(config.criterion))


def _run(job: Job, sources: Sources, begun: float) -> Run:
    before = job.seconds
    if job.step < job.steps:
        from nearfar.train.loop import fit  # Lightning takes seconds to import, which evaluation need not wait for

        try:
            fit(job)
        except DataError as error:
            # From a worker process it comes with that process's traceback in its message.
            raise DataError(str(error).strip().splitlines()[-1].removeprefix("nearfar.errors.DataError: ")) from None
        except OSError as error:
            raise CheckpointError(f"the run folder {job.folder} can no longer be written: {error}") from error
    if job.step < job.steps:
        raise Interrupted(job.folder, job.step, job.steps, terminated=job.terminated)
    if job.ranks.first:
        _conclude(job, sources, before, begun)
    job.ranks.any(False)  # nobody goes on before the first has written what all are to read
    return Run(job.folder.path, job.config, json.loads(job.folder.metrics.read_text(encoding="utf-8")))


def _conclude(job: Job, sources: Sources, before: float, begun: float) -> None:
    """Judge what was trained, write it down and tell it."""
    evaluated = time.monotonic()
    try:
        test = network_table(job.config, job.folder, sources.test, job.device)
    except KeyboardInterrupt as stopped:
        terminated = isinstance(stopped, Terminated)
        raise Interrupted(job.folder, job.step, job.steps, terminated=terminated) from None
    now = time.monotonic()
    metrics = {
        "test": test,
        "validation": {
            "metric": job.config.validation.metric,
            "step": job.best["step"],
            "epoch": job.best["step"] / job.steps_per_epoch,
            **job.best["metrics"],
        },
        "times": {
            "training": round(job.seconds, 2),
            "evaluation": round(now - evaluated, 2),
            "total": round(before + now - begun, 2),
        },
        "data": data_facts(job.config.data.source, sources.test)
        | {"train_classes": sources.train.num_classes, "validation_classes": sources.validation.num_classes},
        "run": {
            "criterion": criterion_text(job.config),
            "model": job.config.model.name,
            "seed": job.config.seed,
            "steps": job.steps,
            "device": job.device.type,
            "devices": job.ranks.world,
            "threads": torch.get_num_threads(),
        },
    }
    write_text(job.folder.metrics, json.dumps(metrics, indent=2) + "\n")
    run = Run(job.folder.path, job.config, metrics)
    from_python = job.config.data.source.startswith(FROM_PYTHON)
    again = f"nearfar.train.evaluate({str(job.folder)!r}, data=…)" if from_python else f"nearfar evaluate {job.folder}"
    warned = told_no_better(
        test,
        job.config.validation.metric,
        best=job.best["step"],
        steps=job.steps,
        validations=math.ceil(job.steps / (job.config.validation.every * job.steps_per_epoch)),
    )
    said = f"{run.table()}\n\n{warned}" if warned else run.table()
    job.narrator.say(f"\n{said}\n\n{job.folder} holds the run; {again} recomputes this")
