"""A comparison as it is said: criteria, what is searched of each, and the commands that do a training again."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="optuna, of nearfar[bench], is not installed")

from nearfar.bench.commands import cell_command, train_command
from nearfar.bench.comparison import Comparison
from nearfar.bench.folder import ComparisonFolder
from nearfar.bench.space import Range, applied
from nearfar.cli import main
from nearfar.errors import ArgumentError, ConfigError, RecipeError, UnknownPart
from nearfar.recipe import Recipe
from nearfar.train.config import Config


def of(criteria: Any, **more: Any) -> Comparison:
    return Comparison.of(("here", {"criteria": criteria, **more}))


def space_of(recipe: str, **more: Any) -> dict[str, Range]:
    return dict(of([recipe], **more).contenders[0].space)


# ---- what is searched where nothing is said


def test_numbers_are_searched_within_a_factor_of_four_of_their_defaults() -> None:
    assert space_of("sup_con") == {"temperature": Range(0.025, 0.4, "log")}


def test_the_range_of_the_docstring_bounds_what_is_searched() -> None:
    assert space_of("circle")["margin"] == Range(0.1, 1.0, "log")  # 0.4 × 4 were beyond a cosine


def test_what_the_recipe_says_is_held() -> None:
    assert "scale" in space_of("arcface")
    assert "scale" not in space_of("arcface(scale=30)")
    assert "margin" not in space_of("triplet(0.3)")


def test_class_vectors_have_their_learning_rate_searched_about_the_one_they_would_have() -> None:
    train = {"optimizer": {"lr": 1e-4}}
    assert space_of("softmax", train=train) == {"optimizer.criterion_lr": Range(2.5e-5, 4e-4, "log")}
    # Proxies learn at a hundred times the network's rate.
    assert space_of("proxy_nca_pp", train=train)["optimizer.criterion_lr"] == Range(2.5e-3, 4e-2, "log")
    held = {"optimizer": {"lr": 1e-4, "criterion_lr": 0.1}}
    assert space_of("softmax", train=held) == {}


def test_a_default_that_is_written_as_a_fraction_is_a_number() -> None:
    found = space_of("proxy_nca_pp")["temperature"]
    assert (found.low, found.high) == pytest.approx((1 / 36, 4 / 9), rel=1e-12)


def test_a_miner_stays_as_it_is_said() -> None:
    assert space_of("triplet(miner=semihard)") == {"margin": Range(0.05, 0.8, "log")}


def test_the_losses_of_a_sum_are_named() -> None:
    assert set(space_of("norm_softmax + 0.003 * triplet")) == {
        "norm_softmax.scale",
        "triplet.margin",
        "optimizer.criterion_lr",
    }


@pytest.mark.parametrize("recipe", ["softmax", "arcface", "sup_con", "proxy_nca_pp", "triplet(miner=semihard)"])
def test_the_search_begins_with_the_criterion_as_it_is_written(recipe: str) -> None:
    (contender,) = of([recipe]).contenders
    assert set(contender.start) == set(contender.space)
    for key, at in contender.start.items():
        searched = contender.space[key]
        assert searched.low <= at <= searched.high
        if searched.low > 0 and searched.high < 1:
            assert at == pytest.approx(math.sqrt(searched.low * searched.high), rel=1e-9)


# ---- what is searched where it is said


def test_a_search_of_its_own_replaces_the_default_one() -> None:
    said = {"arcface": {"criterion": "arcface", "search": {"margin": [0, 0.5], "optimizer.lr": [1e-4, 1e-2, "log"]}}}
    (contender,) = of(said).contenders
    assert contender.space == {"margin": Range(0, 0.5), "optimizer.lr": Range(1e-4, 1e-2, "log")}
    assert contender.start == {"margin": 0.5, "optimizer.lr": 5e-3}


def test_what_is_searched_for_all_adds_up_with_what_is_searched_for_one() -> None:
    both = of(["softmax", "triplet"], search={"optimizer.lr": [1e-4, 1e-2, "log"]})
    assert [set(each.space) for each in both.contenders] == [
        {"optimizer.criterion_lr", "optimizer.lr"},
        {"margin", "optimizer.lr"},
    ]


def test_whole_numbers_are_drawn_for_whole_numbers() -> None:
    said = {
        "st": {"criterion": "soft_triple", "search": {"centers": [1, 10], "batch.samples_per_class": [2, 8, "log"]}}
    }
    assert of(said).contenders[0].space == {
        "centers": Range(1, 10, "linear", whole=True),
        "batch.samples_per_class": Range(2, 8, "log", whole=True),
    }


def test_values_find_their_place_in_the_recipe() -> None:
    recipe = Recipe.of("softmax + 0.003 * triplet(miner=pair_margin)")
    values = {"triplet.margin": 0.3, "triplet.miner.pos_margin": 0.1, "triplet.weight": 0.5, "optimizer.lr": 1e-3}
    changed, settings = applied(recipe, values)
    assert str(changed) == "softmax + 0.5 * triplet(miner=pair_margin(pos_margin=0.1), margin=0.3)"
    assert settings == {"optimizer.lr": 1e-3}


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ({"margn": [0, 1]}, "criteria.a.search.margn: no parameter 'margn'; did you mean 'margin'?"),
        ({"margin": 3}, "criteria.a.search.margin is 3, but must be a range such as"),
        ({"margin": [1, 128, "lg"]}, "criteria.a.search.margin is [1, 128, 'lg'], but must be a range"),
        ({"margin": [0.5, 0.1]}, "the first number is the smaller one"),
        ({"margin": [0, 1, "log"]}, "a logarithmic range begins above 0"),
        ({"margin": ["a", 1]}, "but must be a range"),
        ({"margin": [0, math.inf]}, "but must be a range"),
        ({"margin": [0, 9]}, "criteria.a.search.margin reaches to 9, but margin must be in 0..3.142"),
        ({"optimizer.lrr": [0, 1]}, "no setting of a run is called optimizer.lrr"),
        ({"data.fold": [0, 1]}, "no setting of a run is called data.fold"),
        ({"model.pool": [0, 1]}, "model.pool is no number, and only numbers are searched"),
        ({"miner.margin": [0, 1]}, "arcface has no part there"),
        ({"batch.samples_per_class": [2, 3.5]}, "of whole numbers"),
    ],
)
def test_what_cannot_be_searched_is_refused(search: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of({"a": {"criterion": "arcface", "search": search}})
    assert sentence in str(caught.value)


def test_of_a_sum_a_search_says_which_loss() -> None:
    with pytest.raises(ConfigError, match=r"of a sum say which loss, such as softmax.margin; it has softmax, triplet"):
        of({"a": {"criterion": "softmax + triplet", "search": {"margin": [0, 1]}}})


# ---- the whole


def test_a_comparison_that_is_written_down_reads_as_the_same() -> None:
    said = of(
        ["softmax", "arcface", "arcface(margin=0.2)"], trials=3, train={"model": {"name": "test_vit"}, "epochs": 2}
    )
    again = Comparison.of(said.to_dict())
    assert again == said
    assert [each.name for each in again.contenders] == ["softmax", "arcface", "arcface-2"]
    assert again.train.model.pool == "model"  # that of the backbone, not of the default one


def test_how_many_trainings_it_takes() -> None:
    # Of contrastive(…) with all said nothing is searched: more trials would all be the same.
    both = of(["triplet", "triplet(margin=0.1)"], trials=7, repeats=3, folds=2)
    assert both.trainings == (7 + 3 + 3) * 2


def test_what_a_result_depends_on_is_told_apart_and_nothing_else() -> None:
    one = of(["softmax", "triplet"], repeats=2)
    key = one.key(one.contenders[1])

    def other(**more: Any) -> str:
        changed = of(["arcface", "triplet"], **more)
        return changed.key(changed.contenders[1])

    assert other(repeats=9) == key
    assert other(train={"device": "cpu", "checkpoint_every": 7, "data": {"workers": 2}}) == key
    default = Config().to_dict()
    assert other(train={"augment": default["augment"], "schedule": {"warmup": default["schedule"]["warmup"]}}) == key
    for more in ({"seed": 1}, {"trials": 3}, {"folds": 3}, {"train": {"epochs": 3}}):
        assert other(**more) != key


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "there are no criteria to compare"),
        ({"criteria": "softmax"}, "there are no criteria to compare"),
        ({"criteria": ["softmax"], "trails": 3}, "here: unknown key trails; did you mean trials?"),
        ({"criteria": ["softmax"], "trials": -1}, "trials is -1, but must be a whole number of at least 0"),
        ({"criteria": ["softmax"], "repeats": True}, "repeats is True, but must be a whole number of at least 1"),
        ({"criteria": ["softmax"], "folds": 1}, "folds is 1, but must be a whole number of at least 2"),
        ({"criteria": ["softmax"], "search": 3}, "search is 3, but must be keys with ranges"),
        ({"criteria": {"a/b": "softmax"}}, "'a/b' names files too"),
        ({"criteria": {"a": {"criterion": "softmax", "serch": {}}}}, "criteria.a: unknown key serch"),
        ({"criteria": {"a": {"criterion": "softmax", "search": [1]}}}, "criteria.a.search is [1]"),
        ({"criteria": ["softmax"], "train": {"seed": 3}}, "train.seed is not for a comparison to hold fixed: set seed"),
        ({"criteria": ["softmax"], "train": {"data": {"fold": "1/2"}}}, "train.data.fold is not for a comparison"),
        ({"criteria": ["softmax"], "train": {"criterion": "triplet"}}, "train.criterion is not for a comparison"),
        ({"criteria": ["softmax"], "train": {"epoch": 3}}, "here: unknown key epoch; did you mean epochs?"),
        ({"criteria": ["arcface(margn=1)"]}, "criteria.arcface: no parameter 'margn'; did you mean 'margin'?"),
    ],
)
def test_what_is_wrong_is_one_sentence(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ConfigError, RecipeError, UnknownPart, ArgumentError)) as caught:
        Comparison.of(("here", data))
    assert sentence in str(caught.value)


def test_every_criterion_has_the_same_folds_and_the_same_of_everything() -> None:
    both = of(["softmax", "triplet"], train={"epochs": 3})
    configs = [each.config(both.train, each.start, seed=5, fold="2/4") for each in both.contenders]
    plain = [config.to_dict() for config in configs]
    for one in plain:
        del one["criterion"], one["optimizer"]["criterion_lr"]
    assert plain[0] == plain[1]
    assert plain[0]["data"]["fold"] == "2/4"


# ---- commands


@pytest.mark.parametrize(
    ("recipe", "train"),
    [
        ("arcface(margin=0.3, smoothing='uniform')", {}),
        ("triplet(miner=semihard)", {"model": {"name": "test_vit", "image_size": 32}, "epochs": 3}),
        (
            "softmax + 0.003 * center",
            {"optimizer": {"lr": 1e-7}, "precision": "bf16", "schedule": {"milestones": [0.5]}},
        ),
        ("sup_con", {"model": {"name": "test_vit", "pool": "flatten", "options": {"drop_rate": 0.1}}}),
        ("sup_con", {"data": {"source": "my photos/'here'"}, "augment": {"fill": 0.5, "flip": 0.5}}),
    ],
)
def test_a_command_says_all_that_a_training_had(
    monkeypatch: pytest.MonkeyPatch, recipe: str, train: dict[str, Any]
) -> None:
    (contender,) = (said := of([recipe], train=train)).contenders
    config = contender.config(said.train, contender.start, seed=7, fold="1/2")
    read: list[Any] = []
    monkeypatch.setattr("nearfar.train.run.start", lambda config, **_: read.append(config))
    words = shlex.split(train_command(config))
    with pytest.raises(SystemExit) as left:
        main(words[1:])
    assert left.value.code == 0
    assert read == [config]


def test_the_command_of_a_cell_says_the_same_comparison(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (contender,) = (said := of(["arcface"], folds=3, train={"epochs": 3, "model": {"name": "test_vit"}})).contenders
    values = {"margin": 0.25, "scale": 20.5, "optimizer.criterion_lr": 0.0125}
    config = contender.config(said.train, values, seed=9, fold="1/3")
    read: list[Any] = []

    class Told:
        def to_dict(self) -> dict[str, Any]:
            return {}

    monkeypatch.setattr("nearfar.bench.compare", lambda comparison, *_, **__: read.append(comparison) or Told())
    with pytest.raises(SystemExit) as left:
        main([*shlex.split(cell_command(config, folds=3))[1:], "--json", "-o", str(tmp_path / "again")])
    assert left.value.code == 0
    (again,) = read
    assert (again.trials, again.repeats, again.folds) == (0, 1, 3)
    (only,) = again.contenders
    # Its first repeat has the seed after the comparison's.
    assert only.config(again.train, {}, seed=again.seed + 1, fold="1/3") == config


# ---- the folder


def test_a_folder_takes_more_criteria_and_more_repeats(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path / "out")
    folder.claim(of(["softmax"], repeats=2))
    folder.claim(of(["softmax", "triplet"], repeats=3))
    assert folder.saved() == of(["softmax", "triplet"], repeats=3)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"criteria": ["triplet"]}, "compares softmax too: name all of its criteria, with --only for those"),
        ({"criteria": ["softmax"], "repeats": 1}, "repeats can only be added"),
        ({"criteria": ["softmax"], "repeats": 2, "trials": 3}, "holds another comparison (trials: 20 → 3)"),
        (
            {"criteria": ["softmax"], "repeats": 2, "train": {"batch": {"samples_per_class": 3}}},
            "holds another comparison (batch.samples_per_class: 4 → 3)",
        ),
    ],
)
def test_a_folder_of_another_comparison_is_left_alone(tmp_path: Path, other: dict[str, Any], sentence: str) -> None:
    folder = ComparisonFolder(tmp_path / "out")
    folder.claim(of(["softmax"], repeats=2))
    before = folder.comparison.read_bytes()
    with pytest.raises(ConfigError) as caught:
        folder.claim(Comparison.of(other))
    assert sentence in str(caught.value)
    assert folder.comparison.read_bytes() == before


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds other files than a comparison's"):
        ComparisonFolder(tmp_path).claim(of(["softmax"]))


def test_what_another_process_is_writing_is_no_foreign_file(tmp_path: Path) -> None:
    (tmp_path / ".comparison.yaml.123.tmp").write_text("crit", encoding="utf-8")
    ComparisonFolder(tmp_path).claim(of(["softmax"]))
    assert ComparisonFolder(tmp_path).saved() == of(["softmax"])


def test_a_record_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path)
    path = folder.cell("softmax", 3)
    folder.keep(path, {"a": 1})
    folder.keep(path, {"a": 2})
    assert path.read_text(encoding="utf-8") == '{\n  "a": 1\n}\n'
