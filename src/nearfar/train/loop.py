"""The training loop: Lightning's Trainer over the steps that are left, and what happens between two steps.

One of Lightning's epochs is the whole run, and a step is counted from the run's beginning, also in a run that goes
on. What depends on chance or time is a function of the seed and that number: the batch and its augmentation
(:mod:`nearfar.data`), the learning rate (:mod:`nearfar.train.schedule`), and whatever draws from torch's, numpy's or
Python's own generators, which are seeded anew for each step.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from nearfar.data import Keyed, PKSampler
from nearfar.errors import Diverged, InputError
from nearfar.models import class_vectors, in_chunks, save_class_vectors, save_model
from nearfar.nn import counted
from nearfar.train.checkpoint import Checkpoint
from nearfar.train.clipping import clip
from nearfar.train.environment import Environment
from nearfar.train.job import STEP_KEY, Job
from nearfar.train.logs import CsvTable
from nearfar.train.mined import batches
from nearfar.train.ranks import Share, gathered
from nearfar.train.scaler import RanksScaler
from nearfar.train.schedule import factor
from nearfar.train.shards import sharded_names, whole
from nearfar.train.signals import hearing
from nearfar.train.sources import leave_interrupts_to_parent
from nearfar.train.spread import CollapseWatch, spread
from nearfar.train.table import embed, score

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class _StopNow(BaseException):
    """A second Ctrl-C; not a KeyboardInterrupt, on which Lightning would end the process."""


def fit(job: Job) -> None:
    """Do the steps that are left; on Ctrl-C or SIGTERM stop after the one being done.

    Then ``job.interrupted`` is set, and ``job.terminated`` where it was SIGTERM.
    """
    keeper = Keeper(job)

    def loader(sampler: PKSampler) -> Iterable[Any]:
        return DataLoader(
            Keyed(job.train, job.config.seed),
            batch_sampler=sampler if job.ranks.world == 1 else Share(sampler, job.ranks),
            num_workers=job.workers,
            worker_init_fn=leave_interrupts_to_parent,
            pin_memory=job.device.type == "cuda",
        )

    module = _Step(job)
    with _quiet(), _random_state_kept():
        trainer = L.Trainer(
            accelerator="gpu" if job.device.type == "cuda" else "cpu",
            **_placed(job, module),
            max_epochs=1,
            max_steps=job.steps - job.step,
            logger=_tensorboard(job) if job.ranks.first else False,
            callbacks=[keeper],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=job.config.log_every,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=job.folder.path,
        )
        job.narrator.begin(job.step, job.steps, job.seconds)
        try:
            with hearing(keeper.stoppers):
                trainer.fit(module, batches(job, loader))
        except _StopNow:
            job.interrupted = True
        except SystemExit:  # with which Lightning answers a SIGTERM that came before it let go of it
            job.interrupted = job.terminated = True
        finally:
            job.narrator.end()


def _tensorboard(job: Job) -> TensorBoardLogger:
    return TensorBoardLogger(job.folder.logs, name="", version="tensorboard", purge_step=job.step + 1)


def _placed(job: Job, module: L.LightningModule) -> dict[str, Any]:
    """Where Lightning works, and in which precision."""
    ranks, precision = job.ranks, _PRECISION[job.config.precision]
    if ranks.world == 1:
        return {"devices": 1, "precision": precision}
    # What each rank has for itself no rank is to take over from another.
    apart = sharded_names(module)
    ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(module, apart)
    placed: dict[str, Any] = {
        "devices": ranks.local_world,
        "num_nodes": ranks.world // ranks.local_world,
        "strategy": DDPStrategy(cluster_environment=Environment(ranks)),
    }
    if job.config.precision == "16" and apart:
        # A gradient of its own may overflow on one rank, and all are to skip the step then.
        return placed | {"plugins": [MixedPrecision("16-mixed", "cuda", scaler=RanksScaler())]}
    return placed | {"precision": precision}


class _Step(L.LightningModule):  # type: ignore[misc]  # lightning is untyped here
    """One step: augment, embed, judge."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.model, self.criterion, self.augment = job.model, job.criterion, job.augment
        # Not an attribute of its own name: Lightning's module has properties called so.
        self._job = job
        self.embeddings: Tensor | None = None
        self.loss: Tensor | None = None
        #: Before it was clipped; None where that is not asked for.
        self.gradient_norm: Tensor | None = None
        self.finite = torch.ones((), dtype=torch.bool)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._job.optimizer

    def on_fit_start(self) -> None:
        self.finite = self.finite.to(self.device)
        if self._job.scaler:
            self.trainer.precision_plugin.load_state_dict(self._job.scaler)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        config, step, rank = self._job.config, self._job.step, self._job.ranks.rank
        # Dropout is to differ between the parts of a batch.
        seed_everything(counted.key(config.seed, STEP_KEY, step, *([rank] if rank else [])))
        scale = factor(config.schedule, step, self._job.steps)
        for group in self._job.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * scale
        self.criterion.collect_stats((step + 1) % config.log_every == 0 or step + 1 == self._job.steps)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels, keys = batch
        inputs = self.augment(images, keys)
        if inputs.device.type == "cpu":
            inputs = inputs.to(memory_format=torch.channels_last)
        self.embeddings = in_chunks(self.model, inputs, self._job.config.batch.chunk)
        judged, labels = gathered(self.embeddings.float(), labels, self._job.ranks)
        if self._job.ranks.world > 1:  # what the criterion draws is the same everywhere
            seed_everything(counted.key(self._job.config.seed, STEP_KEY, self._job.step))
        # Half precision is for the network; a criterion keeps it out of itself, but for what a part of it asks for.
        loss = self.criterion(judged, labels)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise InputError(
                f"the criterion {self._job.config.criterion} gives no single number to train on: give it a reducer "
                "that reduces, such as mean"
            )
        self.loss = loss.detach().reshape(())
        self.finite = self.finite & torch.isfinite(self.loss)
        if self.device.type == "cpu":
            self.check_finite()
        return loss.reshape(())

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        # In place of Lightning's, which would have a norm on each rank where that has rows of its own.
        if (limit := self._job.config.optimizer.clip) is not None:
            self.gradient_norm = clip(optimizer, limit)

    def check_finite(self) -> None:
        """Raise where a loss was not finite; on a GPU this waits for it."""
        if bool(self.finite):
            return
        job = self._job
        terms = ", ".join(f"{name} = {float(value):.4g}" for name, value in self.criterion.last.items())
        kept = f"; {job.folder} is kept as of its last checkpoint" if job.folder.checkpoint.exists() else ""
        raise Diverged(f"the loss was not finite at step {job.step + 1} ({terms}): lower optimizer.lr{kept}")


class Keeper(L.Callback):  # type: ignore[misc]  # lightning is untyped here
    """After each step: count, log, validate, keep the best weights, write the checkpoint."""

    def __init__(self, job: Job) -> None:
        self.job = job
        if job.ranks.first:
            self.train_log = CsvTable(job.folder.logs / "train.csv", after=job.step)
            self.validation_log = CsvTable(job.folder.logs / "validation.csv", after=job.step)
        warmup = round(job.config.schedule.warmup * job.steps)
        self.watch = CollapseWatch(max(warmup, min(job.steps_per_epoch, 50)))
        self.since = time.monotonic() - job.seconds
        self.stoppers = _stoppers(job)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning has its own by now, which ends the process at once and as if all were well.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.stoppers[signal.SIGTERM])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, _Step)
        job = self.job
        # Read once: one that comes in between is for the next step, which then has its checkpoint.
        stop = job.interrupted = job.ranks.any(job.interrupted)
        job.terminated = stop and job.ranks.any(job.terminated)
        job.step += 1
        job.seconds = time.monotonic() - self.since
        loss = pl_module.loss
        assert loss is not None
        job.losses.append(loss)
        last = job.step == job.steps
        epoch_done = job.step % job.steps_per_epoch == 0 or last
        validate = last or job.step % (job.config.validation.every * job.steps_per_epoch) == 0
        keep = last or stop or job.step % job.config.checkpoint_every == 0
        log = last or job.step % job.config.log_every == 0
        if log or validate or keep:
            pl_module.check_finite()
        if log:
            self._record(trainer, pl_module, float(loss))
        # By all ranks, which may have a part each. A loss may have been told of more classes than are trained on.
        vectors = class_vectors(job.criterion) if validate else {}
        classes = {name: each for name, each in vectors.items() if len(each) == job.train.num_classes}
        result = self._validate(trainer, classes) if validate and job.ranks.first else ""
        if keep:
            self._write_checkpoint(trainer)
        if epoch_done:
            mean = sum(map(float, job.losses)) / len(job.losses)
            job.losses.clear()
            epochs = math.ceil(job.steps / job.steps_per_epoch)
            job.narrator.epoch(math.ceil(job.step / job.steps_per_epoch), epochs, mean, result)
        job.narrator.step(job.step)
        trainer.should_stop = stop

    def _record(self, trainer: L.Trainer, module: _Step, loss: float) -> None:
        """Write the loss, its terms, their statistics and the spread."""
        job = self.job
        assert module.embeddings is not None
        embeddings = job.ranks.rows(module.embeddings)
        terms = job.criterion.last | job.criterion.statistics()
        if not job.ranks.first:
            return
        values = {
            "epoch": job.step / job.steps_per_epoch,
            "loss": loss,
            "lr": job.optimizer.param_groups[0]["lr"],
            "spread": float(spread(embeddings)),
        }
        if module.gradient_norm is not None:
            values["gradient_norm"] = float(module.gradient_norm)
        values |= {
            f"lr/{group['name']}": group["lr"]
            for group in job.optimizer.param_groups
            if group["initial_lr"] != job.optimizer.param_groups[0]["initial_lr"]
        }
        values |= {f"loss/{name}" if name in job.criterion.last else name: float(v) for name, v in terms.items()}
        if job.criterion.schedules is not None:
            values |= {f"scheduled/{name}": value for name, value in job.criterion.schedules.values.items()}
        self.train_log.add(job.step, values)
        trainer.logger.log_metrics({f"train/{name}": value for name, value in values.items()}, job.step)
        job.narrator.loss(loss)
        self.watch.see(values["spread"], job.step)

    def _validate(self, trainer: L.Trainer, classes: Mapping[str, Tensor]) -> str:
        """Score the validation classes; the best weights so far, and the class vectors with them, become files."""
        job = self.job
        embeddings = embed(job.model, job.validation, device=job.device, workers=job.workers)
        if not embeddings.isfinite().all():
            raise Diverged(f"the network's embeddings are not finite after step {job.step}: lower optimizer.lr")
        scores = score(embeddings, job.validation)
        metric = job.config.validation.metric
        better = not job.best or scores[metric] > job.best["score"]
        if better:
            job.best = {"score": scores[metric], "step": job.step, "metrics": scores}
            save_model(job.model, job.folder.model)
            if classes:
                save_class_vectors(classes, job.folder.classes, job.train.class_names)
        self.validation_log.add(job.step, scores)
        trainer.logger.log_metrics({f"validation/{name}": value for name, value in scores.items()}, job.step)
        shown = dict.fromkeys([metric, "recall@1"])
        text = "validation " + ", ".join(f"{name} {100 * scores[name]:.1f}" for name in shown)
        return text + (" (best)" if better else "")

    def _write_checkpoint(self, trainer: L.Trainer) -> None:
        """Write what the run can go on from, whole, whatever rank has it."""
        job = self.job
        first = job.ranks.first
        criterion = whole(job.criterion.state_dict(), keep=first)
        optimizer = whole(job.optimizer.state_dict(), keep=first)
        if not first:
            return
        Checkpoint(
            step=job.step,
            steps=job.steps,
            seconds=job.seconds,
            model=job.model.state_dict(),
            criterion=criterion,
            optimizer=optimizer,
            scaler=trainer.precision_plugin.state_dict(),
            best=job.best,
            losses=[float(loss) for loss in job.losses],
            data=job.digest,
        ).write(job.folder.checkpoint)


def seed_everything(key: int) -> None:
    """Seed every generator a part may draw from."""
    torch.manual_seed(key)
    random.seed(key)
    np.random.seed(key % 2**32)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Leave the caller's generators as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _stoppers(job: Job) -> dict[int, Callable[..., None]]:
    """Have Ctrl-C or SIGTERM end the run after the step being done, and a second one at once."""

    def stop(number: int, _: Any) -> None:
        if job.interrupted:
            raise _StopNow
        job.interrupted, job.terminated = True, number == signal.SIGTERM
        again = "" if job.terminated else "; press Ctrl-C again to stop at once"
        job.narrator.say(f"stopping after this step{again}")

    return {signal.SIGINT: stop, signal.SIGTERM: stop}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice and its dependencies' deprecations to themselves."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # lightning 2.6 asks torch for what torch 2.15 renames.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"tensorboard\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
