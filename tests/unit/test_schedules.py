"""Numbers that move with the steps: how they are written, checked and moved."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

import nearfar
from nearfar.errors import ArgumentError, RecipeError

CONTEXT = {"num_classes": 4, "embedding_size": 8}
EMBEDDINGS = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4


def problems(recipe: str) -> list[str]:
    return [str(problem) for problem in nearfar.Recipe.of(recipe).check(**CONTEXT)]


def call(criterion: torch.nn.Module) -> float:
    return float(criterion(EMBEDDINGS, LABELS).detach())


# ---- the number


def test_a_linear_schedule_goes_by_equal_amounts_and_stays() -> None:
    schedule = nearfar.Schedule("linear", 0, 0.5, steps=4)
    assert [schedule.at(step) for step in range(7)] == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5]


def test_a_cosine_is_slow_at_both_ends_and_half_way_in_the_middle() -> None:
    schedule = nearfar.Schedule("cosine", 2, 4, steps=6)
    expected = [3 - math.cos(math.pi * step / 6) for step in range(7)]
    assert [schedule.at(step) for step in range(7)] == pytest.approx(expected, rel=1e-12)


def test_a_step_comes_after_its_steps() -> None:
    assert [nearfar.Schedule("step", 1, 3, steps=2).at(step) for step in range(4)] == [1, 1, 3, 3]


def test_what_begins_later_stays_where_it_starts_until_then() -> None:
    schedule = nearfar.Schedule("linear", 1, 0, steps=2, after=3)
    assert [schedule.at(step) for step in range(7)] == [1, 1, 1, 1, 0.5, 0, 0]


def test_its_ends_are_exact() -> None:
    schedule = nearfar.Schedule("linear", 0.1, 0.3, steps=3)
    assert (schedule.at(0), schedule.at(3), schedule.at(10**9)) == (0.1, 0.3, 0.3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("linaer", 0, 1, 5), "did you mean 'linear'"),
        (("linear", 0, math.inf, 5), "end must be a finite number; got inf"),
        (("linear", True, 1, 5), "start must be a finite number; got True"),
        (("linear", 0, 1, 0), "steps must be a whole number of at least 1; got 0"),
        (("linear", 0, 1, 5, -1), "after must be a whole number of at least 0; got -1"),
    ],
)
def test_what_is_no_schedule_is_refused(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        nearfar.Schedule(*arguments)  # type: ignore[arg-type]


# ---- in a recipe


@pytest.mark.parametrize(
    "text",
    [
        "arcface(margin=linear(0, 0.5, steps=10000))",
        "cosface(margin=cosine(0.0, 0.35, steps=100, after=50), scale=step(16, 32, steps=5))",
        "softmax + linear(0, 1, steps=100) * center",
    ],
)
def test_text_data_and_yaml_mean_the_same(text: str) -> None:
    recipe = nearfar.Recipe.of(text)
    assert str(recipe) == text
    assert nearfar.Recipe.of(recipe.to_dict()) == recipe
    assert nearfar.Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert recipe.check(**CONTEXT) == ()


def test_an_object_of_python_means_what_the_text_does() -> None:
    from nearfar.grammar import Part, Term

    schedule = nearfar.Schedule("linear", 0, 0.5, steps=10, after=2)
    assert str(schedule) == "linear(0, 0.5, steps=10, after=2)"
    assert str(Part("arcface", (), {"margin": schedule})) == f"arcface(margin={schedule})"
    assert str(Term(Part("center"), schedule)) == f"{schedule} * center"


def test_a_weight_of_yaml_may_be_a_schedule() -> None:
    data = {"terms": ["softmax", {"weight": "linear(0, 1, steps=9)", "loss": "center"}]}
    assert str(nearfar.Recipe.of(data)) == "softmax + linear(0, 1, steps=9) * center"


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("arcface(margin=linar(0, 0.5, steps=9))", "no schedule is called 'linar'; did you mean 'linear'?"),
        ("arcface(margin=linear(0, 5, steps=9))", "margin = 5 is out of range; it lies in 0..3.142 radians"),
        ("arcface(margin=linear(-1, 0.5, steps=9))", "margin = -1 is out of range"),
        ("arcface(margin=linear(0, 0.5))", "missing a required argument: 'steps'"),
        ("arcface(margin=linear(0, 0.5, steps=0))", "steps must be a whole number of at least 1"),
        ("center(alpha=linear(0, 5, steps=9), num_classes=linear(1, 4, steps=3))", "num_classes cannot be scheduled"),
        ("softmax(label_smoothing=linear(0, 0.1, steps=9))", ""),
        ("liner(0, 1, steps=3) * softmax", "the weight of softmax is liner(0, 1, steps=3), but must be a number"),
    ],
)
def test_a_check_finds_what_is_wrong(recipe: str, said: str) -> None:
    found = problems(recipe)
    assert any(said in problem for problem in found) if said else not found


def test_what_cannot_move_is_told_with_what_can() -> None:
    (problem,) = problems("sphereface(margin=linear(1, 4, steps=5))")
    assert problem.startswith("sphereface: margin cannot be scheduled; ")


# ---- at work


def test_a_margin_moves_with_calls_in_training() -> None:
    moving = nearfar.compose("arcface(margin=linear(0, 0.5, steps=2))", **CONTEXT)
    found = [call(moving) for _ in range(4)]
    moving.eval()
    found.append(call(moving))
    weight = moving.losses["arcface"].weight
    for value, margin in zip(found, (0.0, 0.25, 0.5, 0.5, 0.5), strict=True):
        still = nearfar.compose(f"arcface(margin={margin})", **CONTEXT)
        still.losses["arcface"].weight = weight
        assert value == call(still)
    assert moving.schedules.steps == 4


def test_followed_steps_move_it_rather_than_calls() -> None:
    criterion = nearfar.compose("arcface(margin=linear(0, 0.5, steps=2))", **CONTEXT)
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
    criterion.follow(optimizer)
    for _ in range(2):
        criterion(EMBEDDINGS, LABELS).backward()
    assert criterion.losses["arcface"].margin == 0
    optimizer.step()
    assert criterion.losses["arcface"].margin == 0.25


def test_a_weight_moves_and_the_call_has_the_weight_before() -> None:
    criterion = nearfar.compose("softmax + linear(0, 2, steps=2) * center(alpha=0.0)", **CONTEXT)
    softmax, center = call(criterion), float(criterion.last["center"])
    assert softmax == pytest.approx(float(criterion.last["softmax"]), rel=1e-6)
    assert [call(criterion) - softmax for _ in range(3)] == pytest.approx([center, 2 * center, 2 * center], rel=1e-4)


def test_parts_within_move_with_the_whole() -> None:
    criterion = nearfar.compose(
        "triplet(margin=linear(0, 1, steps=2), miner=semihard(margin=linear(0.5, 1.5, steps=2)))"
    )
    call(criterion)
    assert (criterion.losses["triplet"].margin, criterion.miners["triplet"].margin) == (0.5, 1.0)


def test_a_loss_by_name_moves_by_itself() -> None:
    loss = nearfar.create_loss("cosface", margin=nearfar.Schedule("linear", 0, 0.4, steps=4), **CONTEXT)
    call(loss)
    assert loss.margin == pytest.approx(0.1)


def test_a_miner_on_its_own_has_no_steps() -> None:
    with pytest.raises(ArgumentError, match="moves with the steps does so with those of a loss"):
        nearfar.create_miner("semihard", margin=nearfar.Schedule("linear", 0, 0.4, steps=4))


def test_a_checkpoint_goes_on_where_it_was() -> None:
    recipe = "arcface(margin=linear(0, 0.5, steps=9)) + cosine(0, 1, steps=7) * softmax"
    whole = nearfar.compose(recipe, **CONTEXT)
    for _ in range(3):
        call(whole)
    saved = copy.deepcopy(whole.state_dict())
    assert saved["schedules.steps"] == 3
    again = nearfar.compose(recipe, **CONTEXT)
    again.load_state_dict(saved)
    assert [call(again) for _ in range(5)] == [call(whole) for _ in range(5)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_moves_its_own_numbers(copied) -> None:
    criterion = nearfar.compose("arcface(margin=linear(0, 0.5, steps=5)) + linear(0, 1, steps=5) * softmax", **CONTEXT)
    other = copied(criterion)
    call(other)
    assert (other.losses["arcface"].margin, other.weights["softmax"]) == pytest.approx((0.1, 0.2))
    assert (criterion.losses["arcface"].margin, criterion.weights["softmax"]) == (0, 0)


def test_what_is_computed_from_a_number_keeps_it_from_moving() -> None:
    with pytest.raises(ArgumentError, match="margin cannot be scheduled: scale is computed from margin when"):
        nearfar.compose("arcface(margin=linear(0, 0.5, steps=9), scale='auto')", **CONTEXT)


def test_a_criterion_without_schedules_keeps_its_state_as_it_was() -> None:
    assert set(nearfar.compose("arcface", **CONTEXT).state_dict()) == {"losses.arcface.weight"}


def test_a_warning_looks_at_where_a_threshold_ends() -> None:
    found = problems("contrastive(distance=cosine, neg_margin=linear(0, 1.0, steps=9))")
    assert any("no cosine similarity" in problem for problem in found)


def test_an_unreadable_weight_is_refused() -> None:
    with pytest.raises(RecipeError, match="weight is a number or a schedule"):
        nearfar.Recipe.of({"terms": [{"weight": [1], "loss": "softmax"}]})
