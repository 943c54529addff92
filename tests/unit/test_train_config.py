"""What a run's configuration accepts, and the sentence for what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearfar.errors import ConfigError
from nearfar.train.config import Config, default_layer, differences, file_layer, own_pooling, set_layer


def refused(data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.of(("run.yaml", data))  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"model": {"nam": "x"}}, "run.yaml: unknown key model.nam; did you mean model.name?"),
        ({"lr": 0.1}, "run.yaml: unknown key lr; did you mean optimizer.lr?"),
        ({"epoch": 3}, "run.yaml: unknown key epoch; did you mean epochs?"),
        ({"epochs": "ten"}, "run.yaml: epochs is 'ten', but must be a whole number"),
        ({"epochs": True}, "run.yaml: epochs is True, but must be a whole number"),
        ({"epochs": 2.5}, "run.yaml: epochs is 2.5, but must be a whole number"),
        ({"epochs": 0}, "run.yaml: epochs is 0, but must be at least 1"),
        ({"steps_per_epoch": "many"}, "run.yaml: steps_per_epoch is 'many', but must be a whole number"),
        ({"optimizer": {"lr": "fast"}}, "run.yaml: optimizer.lr is 'fast', but must be a number"),
        ({"optimizer": {"lr": 0}}, "run.yaml: optimizer.lr is 0, but must be above 0.0"),
        ({"optimizer": {"name": "adm"}}, "run.yaml: optimizer.name is 'adm', but must be adamw or sgd"),
        ({"augment": {"fill": "white"}}, "run.yaml: augment.fill is 'white', but must be auto, border, or a grey"),
        (
            {"model": {"image_size": [256]}},
            "run.yaml: model.image_size is [256], but must be a number of pixels, or [height, width]",
        ),
        ({"model": {"image_size": 0}}, "run.yaml: model.image_size is 0, but must be a number of pixels, or [height"),
        ({"augment": {"zoom": [1, 2, 3]}}, "run.yaml: augment.zoom is [1, 2, 3], but must be a list of two numbers"),
        ({"criterion": 3}, "run.yaml: criterion is 3, but must be a recipe"),
        ({"batch": {"samples_per_class": 1}}, "run.yaml: batch.samples_per_class is 1, but must be at least 2"),
    ],
)
def test_what_is_wrong_is_told_by_its_key_and_what_is_meant(data: object, sentence: str) -> None:
    assert refused(data).startswith(sentence)


def test_a_value_where_a_section_is_expected_names_the_sections_keys() -> None:
    assert "model is a section with the keys name, embedding_size" in refused({"model": "resnet18"})


def test_all_problems_are_told_at_once() -> None:
    assert refused({"epochs": 0, "seed": -1}).count(";") == 1


def test_a_document_that_is_no_mapping_is_refused() -> None:
    assert "a configuration is a mapping of keys" in refused(["epochs"])


def test_a_later_layer_wins_key_by_key() -> None:
    config = Config.of(("a", {"optimizer": {"lr": 0.1, "name": "sgd"}, "epochs": 3}), ("b", {"optimizer": {"lr": 0.2}}))
    assert (config.optimizer.lr, config.optimizer.name, config.epochs) == (0.2, "sgd", 3)


def test_a_recipe_as_data_is_replaced_as_a_whole() -> None:
    first = {"criterion": {"terms": [{"loss": "sup_con"}], "plugins": {"pair": "0"}}}
    second = {"criterion": {"terms": [{"loss": "arcface"}]}}
    assert Config.of(("a", first), ("b", second)).criterion == second["criterion"]


@pytest.mark.parametrize(
    ("assignment", "data"),
    [
        ("optimizer.lr=1e-3", {"optimizer": {"lr": 0.001}}),
        ("augment.zoom=[1, 2]", {"augment": {"zoom": [1, 2]}}),
        ("steps_per_epoch=null", {"steps_per_epoch": None}),
        (
            "criterion=triplet(margin=0.2, miner=semihard) + 0.5 * center",
            {"criterion": "triplet(margin=0.2, miner=semihard) + 0.5 * center"},
        ),
    ],
)
def test_an_assignment_is_read_as_yaml(assignment: str, data: object) -> None:
    assert set_layer(assignment)[1] == data


@pytest.mark.parametrize("assignment", ["epochs", "=3", "a..b=3"])
def test_an_assignment_without_key_or_value_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set takes key=value"):
        set_layer(assignment)


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = Config.of(default_layer(), set_layer("optimizer.lr=3e-05"), set_layer("augment.fill=0.5"))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert Config.of(file_layer(tmp_path / "config.yaml")) == config


def test_precision_may_be_written_as_yaml_reads_it() -> None:
    assert Config.of(set_layer("precision=16")).precision == "16"


def test_differences_name_the_leaf() -> None:
    one, other = Config(), Config.of(("x", {"seed": 3, "model": {"pool": "flatten"}}))
    assert differences(one, other) == ["seed: 0 → 3", "model.pool: model → flatten"]
    assert differences(one, one) == []


def test_another_backbone_than_the_default_one_pools_as_it_was_made_to() -> None:
    said = [set_layer("model.name=resnet18")]
    assert Config.of(default_layer(), *own_pooling(said), *said).model.pool == "model"
    assert Config.of(default_layer(), *own_pooling([]), *[]).model.pool == "flatten"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"a: [1"])
def test_a_file_that_is_missing_or_no_yaml_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        file_layer(path)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert Config.of(file_layer(tmp_path / "run.yaml")) == Config()
