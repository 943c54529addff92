"""Memory, and waiting for the device."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.meter import allocations, left_in_cycles, peak_bytes, readable
from nearfar.testing.scene import Scene, batch
from nearfar.testing.subject import Subject
from nearfar.testing.waiting import waits, waits_on_a_gpu
from nearfar.told import told

#: The smallest batch whose memory is measured, that of a plain call; every next one is twice as large. Classes stay
#: as they are.
FEWEST = 12
CLASSES = 4
#: As many as losses that are worked out in parts have several of.
MANY = 400

#: Bytes from which on what does not grow with the batch is hidden; and where the search for agreement ends.
ENOUGH, MOST = 2**20, 2**28
MOST_SECONDS = 2.0

_NAMES = {"cpu": "CPU", "cuda": "GPU"}

#: How far a power may be from the one declared.
TOLERANCE = 0.4


@dataclass(frozen=True, slots=True)
class Growth:
    """Peak memory by the size of the batch, smallest first; each batch is twice the one before it."""

    peaks: Mapping[int, int]

    @property
    def power(self) -> float:
        """The power of the batch size that the peak grows with, at the three largest batches.

        Taken of differences, so that what does not grow is left out.
        """
        first, second, third = list(self.peaks.values())[-3:]
        before, after = second - first, third - second
        return math.log2(after / before) if before > 0 and after > 0 else 0.0

    def agrees(self, declared: int) -> bool:
        """Whether it is, as far as can be told, the power declared.

        A peak that does not grow is that of buffers of a fixed size: what grows may be hidden below it, unless so
        many numbers of 8 bytes would stand out.
        """
        if abs(self.power - declared) <= TOLERANCE:
            return True
        (rows, peak), before = list(self.peaks.items())[-1], list(self.peaks.values())[-2]
        return peak - before < 0.1 * peak and 8 * rows**declared <= peak

    def may_agree(self, declared: int) -> bool:
        """Whether the power is another than declared only because the way of working changed at the end.

        How that grows, larger batches would have told, for which there was no time or no room.
        """
        shorter = Growth(dict(list(self.peaks.items())[:-1]))
        if len(shorter.peaks) < 3:
            return False
        # Blocks that are bounded, and then what grows beside them: a power that cannot be, and was not before.
        overtook = self.power > declared and shorter.power < declared - TOLERANCE
        was_as_declared = shorter.power > max(self.power, declared - 2 * TOLERANCE) + TOLERANCE
        return overtook or (self.power < declared and was_as_declared)

    def __str__(self) -> str:
        largest = list(self.peaks.items())[-3:]
        return ", ".join(f"{readable(peak)} for {rows} rows" for rows, peak in largest)


@law("loss", "miner", "reducer", "distance")
def memory(subject: Subject) -> str:
    """The most memory that a call and its backward pass keep at once grows with the power of the batch size that the
    spec says, with the number of classes as it is."""
    declared = subject.spec.memory
    for device in _devices():
        found = grow(subject, declared, device)
        if declared is None:
            raise NotApplicable(f"the spec does not say its memory; it grows with the power {found.power:.1f}")
        if not found.agrees(declared) and not found.may_agree(declared):
            rows = max(found.peaks)
            made = "; ".join(map(str, allocations(step(subject, rows, device))))
            raise LawBroken(
                f"the spec says memory={declared}, and the peak on the {_NAMES[device]} grows with the power "
                f"{found.power:.2f}: {found}. The most is allocated there: {made}",
                _scene(subject, rows),
            )
    return f"power {found.power:.1f}"


@law("loss", "miner", "reducer", "distance")
def synchronizations(subject: Subject) -> str:
    """A call and its backward pass make the host wait for a GPU as often as the spec says, whatever the size of the
    batch."""
    declared = subject.spec.synchronizations
    few, many = (_attempt(subject, rows, waits) for rows in (FEWEST, 2 * FEWEST))
    said = (
        _times(len(few))
        if len(few) == len(many)
        else f"{_times(len(few))} for {FEWEST} rows and {len(many)} for twice as many"
    )
    if declared is None:
        raise NotApplicable(f"the spec does not say its synchronizations; a GPU would be waited for {said}")
    if {len(few), len(many)} != {declared}:
        listed = ", ".join(f"{n} × {where}" if n > 1 else where for where, n in Counter(many or few).items())
        raise LawBroken(
            f"the spec says synchronizations={declared}, and a GPU would be waited for {said}"
            + (f": {listed}" if listed else ""),
            _scene(subject, FEWEST),
        )
    for device in _devices()[1:]:
        if (found := _attempt(subject, FEWEST, waits_on_a_gpu, device)) > declared:
            raise LawBroken(
                f"the spec says synchronizations={declared}, and the GPU was waited for {_times(found)}",
                _scene(subject, FEWEST),
            )
    return said


@law("loss", "miner", "reducer", "distance")
def freed(subject: Subject) -> None:
    """What a call and its backward pass made goes with their results: no tensor waits for Python's cycle collector,
    which does not know how much memory it could have back."""
    # A part that says nothing of its memory, or that more than a matrix is kept, may need more than there is.
    has_room = subject.spec.memory is not None and subject.spec.memory <= 2
    for rows in (FEWEST, MANY) if has_room else (FEWEST,):
        if left := _attempt(subject, rows, left_in_cycles):
            sizes = ", ".join(
                f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for tensor in left[:3]
            )
            raise LawBroken(
                f"objects that refer to each other in a circle keep {len(left)} tensors of a call on {rows} rows: "
                f"{sizes}{', …' if len(left) > 3 else ''}. A bound method of what keeps its results is such a circle",
                _scene(subject, rows),
            )


def _times(number: int) -> str:
    return {0: "never", 1: "once"}.get(number, f"{number} times")


def _devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def grow(subject: Subject, declared: int | None, device: str = "cpu") -> Growth:
    """Measure larger and larger batches until the power is plain.

    It is once so much is kept that the rest does not count. Where it is not the declared one then, larger batches
    decide: work in blocks is bounded, and a small part that grows fast overtakes a large one in the end.
    """
    peaks: dict[int, int] = {}
    rows = FEWEST
    _attempt(subject, rows, lambda run: peak_bytes(run, device), device)  # the first time loads what stays
    start = now = time.process_time()
    while True:
        try:
            peaks[rows] = _attempt(subject, rows, lambda run: peak_bytes(run, device), device)
        except NotApplicable:
            if len(peaks) < 3:
                raise
            return Growth(peaks)
        before, now = now, time.process_time()
        if len(peaks) >= 3:
            found = Growth(peaks)
            is_plain = peaks[rows] >= ENOUGH
            if is_plain and (declared is None or found.agrees(declared)):
                return found
            seconds = MOST_SECONDS if is_plain else 8 * MOST_SECONDS  # of a slow part too little would be known
            if peaks[rows] * 2 ** min(max(found.power, 1), 3) > MOST or now + 4 * (now - before) - start > seconds:
                return found
        rows *= 2


def _attempt(subject: Subject, rows: int, measure: Callable[[Callable[[], Any]], Any], device: str = "cpu") -> Any:
    """What is measured of one call by a part that was never called before."""
    try:
        return measure(step(subject, rows, device))
    except NotApplicable:
        raise
    except Exception as error:
        raise NotApplicable(f"a batch of {rows} rows does not run: {told(error)}") from error


def step(subject: Subject, rows: int, device: str = "cpu") -> Callable[[], Any]:
    """One call of the part on a batch of ``rows``, with the backward pass where there is one."""
    part, scene = subject.make().to(device), _scene(subject, rows).with_gradients()
    scene = dataclasses.replace(scene, inputs={name: value.to(device) for name, value in scene.inputs.items()})
    leaves = [*scene.learnable().values(), *(p for p in part.parameters() if p.requires_grad)]
    called: Any = _on_losses(subject, part) if subject.kind == "reducer" else part
    # State that a call replaces was not allocated by it, so giving it back says nothing of it.
    held = [tensor.data for tensor in (*part.parameters(), *part.buffers())]
    held += [value for module in part.modules() for value in vars(module).values()]

    def run(_: Any = held) -> Any:
        found = subject.call(called, scene)
        total = _total(found)
        if subject.kind == "miner" or total is None or not total.requires_grad:
            return found
        return found, torch.autograd.grad(total, leaves, allow_unused=True)

    return run


def _total(found: Any) -> Tensor | None:
    """The sum of the tensors that a part returned; its gradient keeps no memory of its own."""
    values = found.values() if isinstance(found, Mapping) else found if isinstance(found, tuple | list) else (found,)
    sums = [value.sum() for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    return torch.stack(sums).sum() if sums else None


def _scene(subject: Subject, rows: int) -> Scene:
    """Inputs of so many rows; of a reducer, so many values."""
    per_class = rows // CLASSES
    if subject.kind in ("loss", "miner"):
        return subject.scene(classes=CLASSES, per_class=per_class)
    if subject.kind == "distance":
        return Scene({"query_emb": subject.rows(CLASSES * per_class, subject.seed)[0]})
    embeddings, labels = batch(CLASSES, per_class)
    losses = embeddings[:, 0].abs()
    return Scene({"losses": losses, "embeddings": embeddings, "labels": labels})


def _on_losses(subject: Subject, reducer: nn.Module) -> Callable[..., Any]:
    """A reducer as a function of values, one an embedding, of the first kind of terms that it takes."""
    kind = subject.reducer.reduces[0]

    def reduce(losses: Tensor, embeddings: Tensor, labels: Tensor) -> Any:
        index = torch.arange(len(losses), device=losses.device)
        indices: Any = {"element": index, "triplet": (index,) * 3}.get(kind, (index,) * 2)
        entry = {"losses": losses, "indices": indices, "reduction_type": kind, "divisor": len(losses)}
        return reducer({"loss": entry}, embeddings, labels)

    return reduce
