"""What came of a comparison, criterion by criterion, and the files that say it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nearfar.bench.cell import ENSEMBLES
from nearfar.bench.comparison import Comparison
from nearfar.bench.figure import draw
from nearfar.bench.folder import ComparisonFolder
from nearfar.bench.statistics import Estimate, estimate, holm, paired
from nearfar.bench.table import document
from nearfar.files import write_text
from nearfar.train.table import METRICS

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One criterion.

    Attributes
    ----------
    name
    criterion
        With the values that were found; as it was written where none were.
    values
        What was found, by key; settings of the run are among them.
    trials, failed
        How many trials are done, and how many of them came to nothing.
    validation
        The best trial's, by metric: the mean over the folds.
    scores
        ``separated`` and ``concatenated``, by metric, over the repeats; empty where there are none.
    p
        Of the same: that there is no difference from the first criterion, by the paired t-test; None for the first.
    adjusted
        The same adjusted for the number of criteria, by Holm's method within each metric.
    each
        ``scores`` of every repeat: the values by seed.
    trouble
        Why there is less than there should be; empty where there is not.
    trainings, seconds
        What it cost, the search included.
    commands
        Seed → what makes this repeat again.
    """

    name: str
    criterion: str
    values: Mapping[str, float]
    trials: int
    failed: int
    validation: Mapping[str, float]
    scores: Mapping[str, Mapping[str, Estimate]]
    p: Mapping[str, Mapping[str, float | None]]
    adjusted: Mapping[str, Mapping[str, float | None]]
    each: Mapping[str, Mapping[str, Mapping[int, float]]]
    trouble: str
    trainings: int
    seconds: float
    commands: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Results:
    """What came of a comparison.

    Attributes
    ----------
    comparison
        What was compared.
    rows
        One a criterion, in its order.
    environments
        Every set of versions, device and threads that results were made with.
    """

    comparison: Comparison
    rows: tuple[Row, ...]
    environments: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, comparison: Comparison, records: Mapping[str, tuple[Sequence[Record], Sequence[Record]]]) -> Results:
        """Put records together.

        Parameters
        ----------
        comparison : Comparison
        records : mapping
            Criterion → its trials and its repeats.
        """
        each = {name: _each(cells) for name, (_, cells) in records.items()}
        first = comparison.contenders[0].name
        p = {name: {} if name == first else _tests(each[first], own) for name, own in each.items()}
        adjusted: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name in each}
        for ensemble in ENSEMBLES:
            for metric in METRICS:
                # The first is not tested against itself.
                of_all = holm({name: p[name][ensemble][metric] for name in each if name != first})
                for name, value in of_all.items():
                    adjusted[name].setdefault(ensemble, {})[metric] = value
        rows = [_row(comparison, name, *records[name], each[name], p[name], adjusted[name]) for name in records]
        every = [record["environment"] for pair in records.values() for part in pair for record in part]
        distinct = list({json.dumps(one, sort_keys=True): one for one in every}.values())
        return cls(comparison, tuple(rows), tuple(distinct))

    def to_dict(self) -> dict[str, Any]:
        """As nested plain data."""
        return {
            "comparison": self.comparison.to_dict(),
            "baseline": self.comparison.contenders[0].name,
            "rows": [asdict(row) for row in self.rows],
            "environments": [dict(one) for one in self.environments],
        }

    def table(self) -> str:
        """As Markdown."""
        return document(self)

    def write(self, folder: ComparisonFolder) -> None:
        """Write what is made of the records: it is made anew each time, as there may be more of them."""
        write_text(folder.results, json.dumps(self.to_dict(), indent=2) + "\n")
        write_text(folder.table, self.table())
        if any(row.scores for row in self.rows):
            draw(self, folder.figure)


def _each(cells: Sequence[Record]) -> dict[str, dict[str, dict[int, float]]]:
    whole = [cell for cell in cells if "failed" not in cell]
    return {
        ensemble: {metric: {cell["seed"]: cell["test"][ensemble][metric] for cell in whole} for metric in METRICS}
        for ensemble in ENSEMBLES
    }


def _tests(first: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    return {
        ensemble: {metric: paired(first[ensemble][metric], own[ensemble][metric]) for metric in METRICS}
        for ensemble in ENSEMBLES
    }


def _row(
    comparison: Comparison,
    name: str,
    trials: Sequence[Record],
    cells: Sequence[Record],
    each: Mapping[str, Mapping[str, Mapping[int, float]]],
    p: Mapping[str, Mapping[str, float | None]],
    adjusted: Mapping[str, Mapping[str, float | None]],
) -> Row:
    tried = [trial for trial in trials if "failed" not in trial]
    whole = [cell for cell in cells if "failed" not in cell]
    metric = comparison.train.validation.metric
    best = max(tried, key=lambda trial: trial["validation"][metric], default=None)
    shown = whole[0] if whole else best
    recipe = next(one.recipe for one in comparison.contenders if one.name == name)
    trainings = [training for record in (*trials, *cells) for training in record.get("trainings", [])]
    scores = {
        ensemble: {metric: estimate(list(values.values())) for metric, values in of.items() if values}
        for ensemble, of in each.items()
    }
    return Row(
        name=name,
        criterion=shown["criterion"] if shown else str(recipe),
        values=shown["values"] if shown else {},
        trials=len(trials),
        failed=len(trials) - len(tried),
        validation=best["validation"] if best else {},
        scores=scores if whole else {},
        p=p,
        adjusted=adjusted,
        each=each,
        trouble=_trouble(comparison, trials, tried, cells, whole),
        trainings=len(trainings),
        seconds=round(sum(record["seconds"] for record in (*trials, *cells)), 1),
        commands={cell["seed"]: cell["command"] for cell in whole},
    )


def _trouble(
    comparison: Comparison,
    trials: Sequence[Record],
    tried: Sequence[Record],
    cells: Sequence[Record],
    whole: Sequence[Record],
) -> str:
    if trials and not tried:
        return f"none of its {len(trials)} trials came to anything: {trials[-1]['failed']}"
    said = []
    if len(tried) < len(trials):
        said.append(f"{len(trials) - len(tried)} of {len(trials)} trials failed")
    if len(whole) < len(cells):
        reason = next(cell["failed"] for cell in cells if "failed" in cell)
        said.append(f"{len(cells) - len(whole)} of {len(cells)} repeats failed: {reason}")
    if len(cells) < comparison.repeats:
        said.append(f"{len(cells)} of {comparison.repeats} repeats are done")
    return "; ".join(said)
