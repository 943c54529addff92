"""Units of work that processes share: each done once, none lost with the process that had it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="optuna, of nearfar[bench], is not installed")

from nearfar.bench.comparison import Comparison
from nearfar.bench.ledger import GRACE, Units, Worker, beating, open_storage
from nearfar.bench.search import draw
from nearfar.errors import ConfigError, DataError

TWO = Comparison.of({"criteria": ["arcface"], "trials": 4})


@pytest.fixture(params=["journal", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "units.journal") if request.param == "journal" else f"sqlite:///{tmp_path}/units.db"


@pytest.fixture
def units(where: str) -> Callable[[int], Units]:
    """Opened anew each time, as by another process."""
    return lambda wanted: Units(open_storage(where), "study", wanted, "data")


def gone_worker() -> Worker:
    """Of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    worker = Worker()
    worker.pid = ended.pid
    return worker


def other_machine() -> Worker:
    worker = Worker()
    worker.host = "elsewhere"
    return worker


def test_as_many_units_as_are_wanted_are_taken(units: Callable[[int], Units]) -> None:
    mine, theirs = units(3), units(3)
    me, they = Worker(), other_machine()
    places = [mine.take(me), theirs.take(they), mine.take(me)]
    assert [place for place, _ in filter(None, places)] == [0, 1, 2]
    assert theirs.take(they) is None
    assert (mine.busy(me), theirs.busy(they)) == (1, 2)
    assert not mine.done


def test_who_comes_too_late_for_the_last_unit_marks_its_own(units: Callable[[int], Units]) -> None:
    mine, theirs = units(1), units(1)
    late = theirs.study.ask
    taken: list[Any] = []

    def ask() -> Any:
        taken.append(mine.take(Worker()))  # between their look and their taking
        return late()

    theirs.study.ask = ask
    assert theirs.take(other_machine()) is None
    assert taken[0] is not None
    assert [trial.number for trial in units(1).taken()] == [0]
    # What was surplus then does not count when more are wanted.
    place, trial = units(2).take(other_machine()) or (None, None)
    assert (place, trial.number) == (1, 2)


def test_results_are_there_for_all_in_order_failed_ones_too(units: Callable[[int], Units]) -> None:
    mine = units(3)
    me = Worker()
    trials = [taken[1] for taken in (mine.take(me) for _ in range(3)) if taken]
    mine.finish(trials[2], {"found": "c"}, 0.3)
    mine.finish(trials[0], {"found": "a"}, 0.1)
    mine.finish(trials[1], {"failed": "diverged"}, None)
    other = units(3)
    assert other.done
    assert other.records() == [
        {"number": 0, "found": "a"},
        {"number": 1, "failed": "diverged"},
        {"number": 2, "found": "c"},
    ]


def test_the_unit_of_a_dead_process_is_taken_over(units: Callable[[int], Units]) -> None:
    taken = units(1).take(gone_worker())
    assert taken is not None
    again = units(1).take(Worker())
    assert again is not None
    assert (again[0], again[1].number) == (0, 0)


def test_of_all_that_find_a_process_gone_at_once_one_takes_its_unit(units: Callable[[int], Units]) -> None:
    taken = units(1).take(gone_worker())
    assert taken is not None
    workers = [Worker(), Worker()]
    shared = [units(1), units(1)]
    workers[0].pid = os.getppid()  # a process that the other finds alive
    dead = shared[0].owner(shared[0].taken()[0])
    claims = [each._claim(each.taken()[0], dead, worker) for each, worker in zip(shared, workers, strict=True)]
    assert claims == [True, False]
    assert units(1).owner(units(1).taken()[0]).token == workers[0].token
    assert [each.take(worker) for each, worker in zip(shared, workers, strict=True)] == [None, None]


def test_a_unit_may_be_taken_over_from_one_that_took_it_over(units: Callable[[int], Units]) -> None:
    units(1).take(gone_worker())
    heir = gone_worker()
    assert units(1).take(heir) is not None
    assert units(1).owner(units(1).taken()[0]).token == heir.token
    last = Worker()
    again = units(1).take(last)
    assert again is not None
    assert (again[0], again[1].number) == (0, 0)
    assert units(1).busy(last) == 0
    assert units(1).take(last) is None


def test_who_takes_over_on_another_machine_is_alive_from_then_on(
    units: Callable[[int], Units], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert units(1).take(other_machine()) is not None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + GRACE + 1)
    third = other_machine()
    third.host = "elsewhere too"
    assert units(1).take(third) is not None
    assert units(1).take(Worker()) is None  # though it has given no sign of life of its own yet


def test_processes_that_race_for_the_unit_of_a_dead_one_get_it_once(where: str) -> None:
    Units(open_storage(where), "study", 1, "data").take(gone_worker())
    code = (
        "import sys; from nearfar.bench.ledger import Units, Worker, open_storage; "
        "units = Units(open_storage(sys.argv[1]), 'study', 1, 'data'); print(flush=True); input(); "
        "print('mine' if units.take(Worker()) else 'not', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racing = [subprocess.Popen([sys.executable, "-c", code, where], **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for process in racing:
        process.stdout.readline()  # it is ready
    for process in racing:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.stdout.readline().strip() for process in racing]
    for process in racing:
        process.communicate("\n", timeout=60)
    assert sorted(said) == ["mine", "not", "not"]


def test_a_unit_goes_on_with_the_values_that_were_drawn(units: Callable[[int], Units]) -> None:
    (contender,) = TWO.contenders
    first = units(4)
    for _ in range(3):
        place, trial = first.take(gone_worker()) or (0, None)
        values = draw(trial, place, contender, TWO)
        if place == 2:
            break
        first.finish(trial, {"values": values}, 0.1 * place)
    place, trial = units(4).take(Worker()) or (0, None)
    assert place == 2
    assert draw(trial, place, contender, TWO) == values


def test_what_is_drawn_is_a_function_of_the_seed_and_of_what_is_known(tmp_path: Path) -> None:
    (contender,) = TWO.contenders

    def drawn(name: str, *, anew: bool) -> list[dict[str, float]]:
        found = []
        units = Units(open_storage(tmp_path / name), "study", 4, "data")
        for _ in range(4):
            if anew:
                units = Units(open_storage(tmp_path / name), "study", 4, "data")
            place, trial = units.take(Worker()) or (0, None)
            found.append(draw(trial, place, contender, TWO))
            units.finish(trial, {}, found[-1]["margin"])
        return found

    whole, parts = drawn("whole", anew=False), drawn("parts", anew=True)
    assert whole == parts
    assert whole[0] == {"margin": 0.5, "scale": 64.0, "optimizer.criterion_lr": 0.005}
    assert len({each["margin"] for each in whole}) == 4


def test_the_unit_of_a_living_process_is_not_taken(units: Callable[[int], Units]) -> None:
    assert units(1).take(other_machine()) is not None
    assert units(1).take(Worker()) is None


def test_a_machine_that_is_silent_is_taken_for_gone(
    units: Callable[[int], Units], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trial = units(1).take(other_machine()) or (0, None)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + GRACE + 1)
    trial.set_user_attr("beat", now + 2)  # alive a moment ago
    assert units(1).take(Worker()) is None
    monkeypatch.setattr(time, "time", lambda: now + 2 * GRACE)
    assert units(1).take(Worker()) is not None


def test_a_process_gives_signs_of_life_while_it_works(units: Callable[[int], Units]) -> None:
    mine = units(1)
    _, trial = mine.take(Worker()) or (0, None)
    begun = time.time()
    with beating(trial, every=0.01):
        deadline = time.monotonic() + 20
        while "beat" not in units(1).taken()[0].user_attrs and time.monotonic() < deadline:
            time.sleep(0.02)
    assert units(1).taken()[0].user_attrs["beat"] >= begun


def test_what_was_finished_by_another_stays(units: Callable[[int], Units]) -> None:
    lost, again = gone_worker(), Worker()
    slow = units(1)
    _, theirs = slow.take(lost) or (0, None)
    quick = units(1)
    _, mine = quick.take(again) or (0, None)
    quick.finish(mine, {"found": 1}, 0.5)
    slow.finish(theirs, {"found": 2}, 0.25)
    assert units(1).records() == [{"number": 0, "found": 1}]


def test_other_data_is_refused(where: str) -> None:
    Units(open_storage(where), "study", 1, "before")
    with pytest.raises(DataError, match="the data is not what this comparison began with"):
        Units(open_storage(where), "study", 1, "after")


def test_processes_may_open_a_new_storage_at_once(where: str) -> None:
    code = (
        "import sys, time; from nearfar.bench.ledger import Units, open_storage; print(flush=True); input(); "
        "Units(open_storage(sys.argv[1]), 'study', 1, 'data')"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported what it needs
    for process in both:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in both:
        process.communicate(timeout=100)
    assert [process.returncode for process in both] == [0, 0]
    assert len(Units(open_storage(where), "study", 1, "data").study.get_trials()) == 0


def test_a_storage_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the storage nonsense://x cannot be opened"):
        open_storage("nonsense://x")
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(ConfigError, match="cannot be opened"):
            open_storage(tmp_path / "locked" / "deeper" / "units.journal")
