"""Planning: every problem of a recipe at once, each a sentence that helps."""

from __future__ import annotations

from typing import Literal

import pytest

from nearfar.discovery import Plugin
from nearfar.recipe import Recipe
from nearfar.registry import Registry
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec, Preset, ReducerSpec


class Triplet:
    """A loss.

    Parameters
    ----------
    margin : float
        [0..inf] How far.
    """

    def __init__(self, margin: float = 0.2, mode: Literal["hard", "soft"] = "hard", *, distance=None, reducer=None): ...


class Head:
    """A head.

    Parameters
    ----------
    margin : float
        [radians, 0..pi/2] How far.
    """

    def __init__(self, num_classes: int, embedding_size: int, margin: float = 0.5, *, reducer=None): ...


class Pairs:
    def __init__(self, pos_margin: float = 0.0, neg_margin: float = 1.0, *, distance=None, reducer=None): ...


class Wrapper:
    def __init__(self, loss, size: int = 10, miner=None): ...


class Many:
    def __init__(self, losses, default_reducer=None): ...


class Anything:
    def __init__(self, thing=None): ...


class Sum:
    def __init__(self, *losses, weight=1.0): ...


class Plain:
    def __init__(self): ...


class Centre:
    def __init__(self, *, normalize: bool = False): ...


class Miner:
    def __init__(self, margin: float | None = None, *, distance=None): ...


def part(kind, name, target, **fields):
    return kind(name=name, target=f"x:{target.__name__}", summary="A part.", **fields), target


PARTS = [
    part(
        LossSpec,
        "triplet",
        Triplet,
        accepts=("triplets",),
        emits=("triplet",),
        distances=("*",),
        default_distance="local.euclidean",
    ),
    part(
        LossSpec,
        "head",
        Head,
        needs=("num_classes", "embedding_size"),
        accepts=("weights",),
        presets={"wide": Preset(arguments={"margin": 1.0}, source="a paper")},
    ),
    part(
        LossSpec,
        "contrastive",
        Pairs,
        accepts=("pairs",),
        emits=("pos_pair", "neg_pair"),
        distances=("*",),
        default_distance="local.euclidean",
        thresholds={"pos_margin": "positive", "neg_margin": "negative"},
    ),
    part(LossSpec, "circle", Plain, distances=("cosine",), emits=("element",)),
    part(LossSpec, "center", Centre, family="center", uses_norm=True),
    part(LossSpec, "softmax", Plain, uses_norm=True),
    part(LossSpec, "histogram", Plain, emits=("already_reduced",)),
    part(LossSpec, "buggy", Plain, defects=("it fails on duplicates",)),
    part(LossSpec, "giou", Plain, inputs=("pred_boxes", "target_boxes")),
    part(LossSpec, "grouped", Plain, inputs=("pred_boxes", "target_boxes"), optional_inputs=("box_groups",)),
    part(LossSpec, "views", Plain, inputs=("embeddings", "ref_emb", "ref_labels")),
    part(LossSpec, "memory", Wrapper, emits=("already_reduced",)),
    part(LossSpec, "picky", Wrapper, emits=("already_reduced",), wraps=("pml.*",)),
    part(LossSpec, "multiple", Many),
    part(LossSpec, "sum_of", Sum),
    part(LossSpec, "anything", Anything),
    part(LossSpec, "optional", Plain, requires="no-such-distribution"),
    part(MinerSpec, "hard", Miner, produces="triplets", distances=("*",)),
    part(MinerSpec, "pairs", Miner, produces="pairs"),
    part(ReducerSpec, "mean", Plain),
    part(ReducerSpec, "none", Plain, keeps=True),
    part(ReducerSpec, "elementwise", Plain, reduces=("element",)),
    part(ReducerSpec, "by_class", Plain, asks=("labels",)),
    part(ReducerSpec, "by_group", Plain, asks=("labels", "groups")),
    part(DistanceSpec, "euclidean", Plain, range=(0.0, 2.0)),
    part(DistanceSpec, "cosine", Plain, similarity=True, range=(-1.0, 1.0)),
    part(MinerSpec, "twin", Miner, produces="pairs"),
    part(LossSpec, "twin", Plain),
]


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry(
        [Plugin(namespace="broken", distribution="b", version="1", module="b", status="failed", reason="no")]
    )
    for spec, target in PARTS:
        registry.register(spec, target)
    return registry


def problems(registry, text, **context):
    return [(p.severity, p.message) for p in Recipe.of(text).check(registry, **context)]


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("triplet", {}),
        ("triplet(0.3, 'soft', miner=hard, reducer=mean, distance=cosine)", {}),
        ("head(10, 20)", {}),
        ("head", {"num_classes": 10, "embedding_size": 20}),
        ("head(preset='wide', num_classes=3)", {"embedding_size": 20}),
        ("contrastive(neg_margin=0.5, distance=cosine)", {}),
        ("softmax + 0.003 * center", {}),
        ("circle + 0.003 * center(normalize=True)", {}),
        ("circle(distance=cosine) + giou", {}),
        ("memory(contrastive(miner=pairs), size=4)", {}),
        ("memory(triplet, miner=hard)", {}),
        ("multiple([triplet, circle], default_reducer=mean)", {}),
        ("multiple({'a': triplet})", {"num_classes": 3}),
        ("multiple([twin])", {}),
        ("triplet(reducer=by_class)", {}),
        ("triplet(reducer=by_group)", {}),
        ("grouped(reducer=by_group)", {}),
    ],
)
def test_what_fits_has_no_problems(registry, text, context):
    assert problems(registry, text, **context) == []


@pytest.mark.parametrize(
    ("text", "severity", "message"),
    [
        ("tripplet", "error", "no loss is called 'tripplet'; did you mean 'triplet'?"),
        ("broken.loss", "error", "the plugin 'broken' is failed (no)"),
        ("mean", "error", "no loss is called 'mean'; there is a reducer of that name"),
        ("triplet(margn=1)", "error", "no parameter 'margn'; did you mean 'margin'? triplet takes margin = 0.2"),
        ("head(1, 2, margin=28.6)", "error", "margin = 28.6 is out of range; it lies in 0..1.571 radians"),
        ("triplet(margin='wide')", "error", "triplet: margin is 'wide', but must be a number"),
        ("triplet(margin=True)", "error", "triplet: margin is True, but must be a number"),
        ("triplet(margin=None)", "error", "triplet: margin is None, but must be a number"),
        ("head(2.5, 2)", "error", "head: num_classes is 2.5, but must be a whole number"),
        ("hard(margin=True)", "error", "no loss is called 'hard'"),
        ("triplet(margin=-1)", "error", "margin = -1 is out of range"),
        ("triplet(mode='sotf')", "error", "mode is one of 'hard', 'soft', not 'sotf'; did you mean 'soft'?"),
        ("head(1, 2, preset='wyde')", "error", "has no preset 'wyde'; did you mean 'wide'? it has wide"),
        ("head(1, 2, preset=wide)", "error", "preset is a name in quotes, such as preset='…', not wide"),
        ("circle(preset='x')", "error", "has no presets"),
        ("head(num_classes=3)", "error", "head needs embedding_size: write head(embedding_size=…), or give compose("),
        ("memory", "error", "memory lacks loss; memory takes loss, size = 10, miner = None"),
        ("optional", "error", "needs no-such-distribution: pip install no-such-distribution"),
        ("contrastive(miner=hard)", "error", "hard produces triplets, but contrastive accepts pairs"),
        ("circle(miner=hard)", "error", "circle takes no miner; local.hard would be ignored"),
        ("giou(miner=hard)", "error", "giou takes pred_boxes, target_boxes, and local.hard selects among embeddings"),
        ("histogram(reducer=mean)", "error", "histogram reduces itself; the reducer local.mean would be ignored"),
        ("triplet(reducer=elementwise)", "error", "elementwise does not reduce triplet terms, which triplet emits"),
        (
            "grouped(reducer=by_class)",
            "error",
            "by_class asks for the labels of each term, and grouped, which takes pred_boxes, target_boxes, has none",
        ),
        ("views(reducer=by_class)", "error", "views, which takes embeddings, ref_emb, ref_labels, has none"),
        ("giou(reducer=by_group)", "error", "by_group asks for the labels or groups of each term, and giou"),
        ("memory(views(reducer=by_class))", "error", "by_class asks for the labels of each term, and views"),
        ("head(1, 2, distance=cosine)", "error", "head works on no distance; local.cosine would be ignored"),
        ("circle(distance=euclidean)", "error", "circle works on cosine, not on local.euclidean"),
        ("triplet(miner=mean)", "error", "no miner is called 'mean'; there is a reducer of that name"),
        ("triplet(miner=hard(margn=1))", "error", "no parameter 'margn'"),
        ("memory(tripplet)", "error", "no loss is called 'tripplet'"),
        ("anything(twin)", "error", "'twin' names a loss and a miner; give it by the name of the parameter"),
        ("buggy", "warning", "local.buggy: it fails on duplicates"),
        (
            "contrastive(distance=cosine)",
            "warning",
            "embeddings collapsed to a point cost nothing; choose neg_margin below 1",
        ),
        ("contrastive(neg_margin=0)", "warning", "collapsed to a point cost nothing"),
        ("triplet(miner=3)", "error", "triplet: miner is 3, but must be the name of a miner"),
        ("triplet(reducer=[mean])", "error", "but must be the name of a reducer"),
        ("triplet(margin=[1])", "error", "triplet: margin is [1], but must be a number"),
        ("triplet(margin=mean)", "error", "triplet: margin is mean, but must be a number"),
        ("picky(triplet)", "error", "picky takes pml.* only, not local.triplet"),
        ("triplet(reducer=none) + circle", "error", "triplet is left unreduced by none, so it cannot be added"),
        ("center + circle", "warning", "center pulls embeddings as they are, and circle ignores their length"),
        ("center + circle", "warning", "say center(normalize=True), or pair it with a loss on unnormalised embeddings"),
    ],
)
def test_what_does_not_fit_is_said(registry, text, severity, message):
    found = problems(registry, text)
    assert [found_severity for found_severity, _ in found] == [severity]
    assert message in found[0][1]


def test_all_problems_come_at_once(registry):
    text = "tripplet + head(margn=1) + circle(miner=hard, distance=euclidean) + buggy"
    assert len(problems(registry, text)) == 5


def test_what_contradicts_its_context_is_a_mistake(registry):
    ((severity, message),) = problems(registry, "head(num_classes=2)", num_classes=3, embedding_size=4)
    assert severity == "error"
    assert message == "head is given num_classes = 2, and its context 3"


def test_a_class_where_an_instance_belongs_is_told(registry):
    class Mine:
        state_dict = None

        def __call__(self): ...

    def found(**slots):
        return [p.message for p in Recipe.of("triplet", **slots).check(registry)]

    assert found(miner=Mine) == ["triplet: miner is a class; give an instance of it: Mine(…)"]
    assert found(miner=Mine()) == []
    assert "but must be a torch module" in found(distance=len)[0]


def test_a_context_that_no_part_asks_for_is_a_mistake(registry):
    ((severity, message),) = problems(registry, "triplet", num_clases=3)
    assert severity == "error"
    assert message == "no part needs 'num_clases'; did you mean 'num_classes'?"
    ((_, message),) = problems(registry, "triplet", minner="hard")
    assert message == "no part needs 'minner'; did you mean 'miner'?"


def test_a_plan_holds_bound_arguments(registry):
    (term,) = Recipe.of("0.5 * head(3, preset='wide')").plan(registry, embedding_size=8).terms
    assert term.weight == 0.5
    assert term.loss.arguments == {"num_classes": 3, "embedding_size": 8, "margin": 1.0}


def test_what_the_constructor_takes_goes_to_it_and_the_rest_is_set_on_the_object(registry):
    (term,) = Recipe.of("circle(reducer=mean, distance=cosine)").plan(registry).terms
    assert term.loss.arguments == {}
    assert {name: p.entry.spec.name for name, p in term.loss.attributes.items()} == {
        "reducer": "mean",
        "distance": "cosine",
    }
    (term,) = Recipe.of("memory(triplet, miner=hard)").plan(registry).terms
    assert term.loss.miner is None
    assert term.loss.arguments["miner"].entry.spec.name == "hard"
    (term,) = Recipe.of("triplet(miner=hard)").plan(registry).terms
    assert term.loss.miner.entry.spec.name == "hard"


def test_a_part_may_take_any_number_of_parts(registry):
    (term,) = Recipe.of("sum_of(triplet, circle, weight=2.0)").plan(registry).terms
    assert [planned.entry.spec.name for planned in term.loss.variadic] == ["triplet", "circle"]
    assert term.loss.arguments == {"weight": 2.0}


def test_an_explicit_argument_beats_its_preset(registry):
    (term,) = Recipe.of("head(1, 2, preset='wide', margin=0.1)").plan(registry).terms
    assert term.loss.arguments["margin"] == 0.1
