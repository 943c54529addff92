"""The table of a comparison as Markdown, with what its figures are and the commands that make them again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nearfar.bench.space import is_setting
from nearfar.bench.statistics import CONFIDENCE, Estimate
from nearfar.words import number_of

if TYPE_CHECKING:
    from nearfar.bench.results import Results, Row

#: The metrics of the paper, in its order, and what they are called there.
COLUMNS = {"recall@1": "P@1", "r_precision": "R-precision", "map@r": "MAP@R"}
#: What the test is on.
TESTED = "map@r"


def document(results: Results) -> str:
    """Everything: the table of each ensemble, what was found, how it was done, the commands."""
    comparison = results.comparison
    size = comparison.train.model.embedding_size
    wide = f" (each {size} wide)" if size else ""
    parts = [
        f"# {number_of(len(results.rows), 'criterion', 'criteria')} on {comparison.train.data.source}",
        f"Test classes, per cent; {_over(comparison.repeats)}.",
        f"## Separated\n\nThe mean of the {comparison.folds} models of the folds{wide}.",
        _markdown(_head(), [_line(row, "separated") for row in results.rows]),
        f"## Concatenated\n\nThe embeddings of the {comparison.folds} models side by side.",
        _markdown(_head(), [_line(row, "concatenated") for row in results.rows]),
        "## What was found",
        _markdown(["criterion", "with", "best validation MAP@R", "trials"], [_found(row) for row in results.rows]),
        *_troubles(results),
        "## How\n\n" + "\n".join(f"- {line}" for line in how(results)),
        "## Again\n\nEach repeat, bit for bit on the same machine with as many threads:",
        *(f"{row.name}:\n\n```console\n{_commands(row)}\n```" for row in results.rows if row.commands),
    ]
    return "\n\n".join(parts) + "\n"


def brief(results: Results) -> str:
    """The two tables alone, as the command line shows them."""
    separated = _markdown(_head(), [_line(row, "separated") for row in results.rows])
    concatenated = _markdown(_head(), [_line(row, "concatenated") for row in results.rows])
    return "\n\n".join(["Separated, per cent", separated, "Concatenated, per cent", concatenated, *_troubles(results)])


def how(results: Results) -> Iterator[str]:
    """What the figures are, in sentences."""
    comparison, first = results.comparison, results.comparison.contenders[0].name
    train = comparison.train
    yield (
        f"The classes that are not for the test are in {comparison.folds} parts; each model is trained on all but one "
        f"of them for {number_of(train.epochs, 'epoch')}, whatever the criterion. Every "
        f"{_every(train.validation.every)} and at the end it is judged on the part left out, and the weights that are "
        f"best by {train.validation.metric} are kept."
    )
    yield (
        f"Every criterion has the same network ({train.model.name}, {train.model.image_size or 'its own'} pixels), "
        f"folds, batches ({train.batch.classes_per_batch} classes × {train.batch.samples_per_class} images), optimiser "
        f"({train.optimizer.name}, {train.optimizer.lr:g}), schedule and length."
    )
    yield from _searched(comparison.trials)
    yield from _compared(comparison.repeats, first)
    trainings, seconds = sum(row.trainings for row in results.rows), sum(row.seconds for row in results.rows)
    yield f"It took {number_of(trainings, 'training')} and {_long(seconds)} of one process."
    for each in results.environments:
        yield f"Made with {', '.join(f'{name} {value}' for name, value in each.items())}."


def _long(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def _every(epochs: int) -> str:
    return "epoch" if epochs == 1 else f"{epochs} epochs"


def _over(repeats: int) -> str:
    return f"the mean of {repeats} repeats and its {CONFIDENCE:.0%} interval" if repeats > 1 else "of one repeat"


def _searched(trials: int) -> Iterator[str]:
    if trials < 2:  # the first is the criterion as it is written
        yield "Hyper-parameters are those that the criteria are written with: nothing was searched."
        return
    yield (
        f"Hyper-parameters are those of the best of {trials} trials by the mean of the folds' validation; the first "
        "trial is the criterion as it is written, those after it are Optuna's."
    )


def _compared(repeats: int, first: str) -> Iterator[str]:
    if repeats == 1:
        yield "One repeat has no interval and no test: what criteria differ by may be the seed's doing."
        return
    yield (
        f"Intervals are Student's over {repeats} seeds. They say how much a result depends on the seed, not on which "
        "classes there are."
    )
    yield (
        f"p is that MAP@R does not differ from that of {first}: two-sided paired t-test over the seeds, adjusted by "
        "Holm's method for the number of criteria."
    )


def _head() -> list[str]:
    return ["criterion", *COLUMNS.values(), "p"]


def _line(row: Row, ensemble: str) -> list[str]:
    if not row.scores:
        return [row.name, *("–" for _ in COLUMNS), "–"]
    return [row.name, *(_estimate(row.scores[ensemble][metric]) for metric in COLUMNS), _p(row, ensemble)]


def _estimate(value: Estimate) -> str:
    mean = f"{100 * value.mean:.1f}"
    return mean if value.half is None else f"{mean} ± {100 * value.half:.1f}"


def _p(row: Row, ensemble: str) -> str:
    p = row.adjusted.get(ensemble, {}).get(TESTED)
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _found(row: Row) -> list[str]:
    settings = [f"`{key}={value:g}`" for key, value in row.values.items() if is_setting(key)]
    best = f"{100 * row.validation['map@r']:.1f}" if row.validation else "–"
    trials = f"{row.trials}, {row.failed} failed" if row.failed else str(row.trials)
    return [row.name, ", ".join([f"`{row.criterion}`", *settings]), best, trials]


def _troubles(results: Results) -> list[str]:
    said = [f"- {row.name}: {row.trouble}" for row in results.rows if row.trouble]
    return ["\n".join(said)] if said else []


def _commands(row: Row) -> str:
    return "\n".join(f"$ {command}" for command in row.commands.values())


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
