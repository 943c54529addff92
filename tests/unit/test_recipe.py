"""Recipes: one meaning in every spelling, and sentences for what cannot be read."""

from __future__ import annotations

import contextlib
import keyword
import math
from importlib import metadata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nearfar
from nearfar.errors import ConfigError, NearfarWarning, RecipeError
from nearfar.grammar import Live, Part, Term
from nearfar.recipe import Recipe
from nearfar.yaml12 import load

SPELLINGS = [
    "softmax",
    "margin.arcface",
    "triplet(margin=0.2, miner=semihard, reducer=avg_non_zero)",
    "softmax + 0.003 * center",
    "cross_batch_memory(contrastive(neg_margin=1.0), size=4096)",
    "arcface(preset='insightface_2023')",
    "0.5 * triplet(miner=hard(margin=0.1, distance=cosine)) + -2.0 * giou",
    "thing(a=[1, -2.5, 'x', [True, None]], b={'k': mean, 'l': [sum]}, c=inf, d=-inf)",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_string_data_and_yaml_say_the_same(text):
    recipe = Recipe.of(text)
    assert str(recipe) == text
    assert Recipe.of(recipe.to_dict()) == recipe
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_keywords_and_the_string_say_the_same():
    assert Recipe.of("triplet(margin=0.2)", miner="semihard", reducer="mean", distance="cosine") == Recipe.of(
        "triplet(margin=0.2, miner=semihard, reducer=mean, distance=cosine)"
    )


def test_slots_go_to_every_term_that_does_not_say_its_own():
    recipe = Recipe.of("triplet + 2 * contrastive", reducer="sum")
    assert str(recipe) == "triplet(reducer=sum) + 2.0 * contrastive(reducer=sum)"
    with pytest.raises(RecipeError, match="reducer is given twice"):
        Recipe.of("triplet(reducer=mean)", reducer="sum")


def test_yaml_may_be_written_by_hand_in_its_long_form():
    recipe = Recipe.from_yaml(
        """
        terms:
          - loss: softmax
          - weight: 3e-3
            loss: {part: center, arguments: {alpha: 0.5}}
            reducer: sum
          - 2 * triplet(margin=0.1)
        """
    )
    assert str(recipe) == "softmax + 0.003 * center(alpha=0.5, reducer=sum) + 2.0 * triplet(margin=0.1)"


def test_strings_in_a_slot_are_names_and_elsewhere_are_text():
    (term,) = Recipe.of("triplet(miner='hard(margin=1)', mode='hard')").terms
    assert term.slot("miner") == Part("hard", (), {"margin": 1})
    assert term.loss.named["mode"] == "hard"


def test_newlines_and_spaces_do_not_matter():
    assert Recipe.of("softmax\n  +  0.003*center (\n alpha = .5 )\n") == Recipe.of(
        "softmax + 0.003 * center(alpha=0.5)"
    )


def test_tuples_and_lists_are_one():
    assert Recipe.of("x(a=(1, 2))") == Recipe.of("x(a=[1, 2])")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the recipe is empty"),
        ("triplet(margin=", "cannot be read at column"),
        ("a - b", "a recipe is a sum"),
        ("a * 2", "the number comes first"),
        ("2 * 3 * a", "the number comes first"),
        ("a / 2", "is not a term"),
        ("2", "'2' is not the name of a loss"),
        ("'softmax'", "is not the name of a loss"),
        ("a.b.c", "is not the name of a part"),
        ("a(**x)", "uses **"),
        ("a(*x)", "neither a literal nor a part"),
        ("a(miner=semi-hard)", "neither a literal nor a part; a name has no hyphens: did you mean semi_hard?"),
        ("multi-part-name", "a name has no hyphens: did you mean multi_part_name?"),
        ("a(x=1, x=2)", "twice"),
        ("a(x=y + 1)", "neither a literal nor a part"),
        ("a(lambda: 1)", "neither a literal nor a part"),
        ("a(x=f'{b}')", "neither a literal nor a part"),
        ("a(x={1: 2})", "has a key that is not a string"),
        ("a(x=1j)", "neither a literal nor a part"),
        ("a(x=b'bytes')", "neither a literal nor a part"),
        ("[a]", "is not the name of a loss"),
        ("a if b else c", "neither a literal nor a part"),
        ("__import__('os').system('true')", "is not the name of a part"),
    ],
)
def test_what_the_grammar_does_not_name_is_refused_in_a_sentence(text, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.of(text)
    assert message in str(caught.value)
    assert text.strip() == "" or text[:4] in str(caught.value)


@pytest.mark.parametrize("weight", ["1e400", "inf", "nan", "-inf"])
def test_a_weight_is_a_finite_number(weight):
    with pytest.raises(RecipeError, match=r"the weight of triplet is (-?inf|nan); a weight is a finite number"):
        Recipe.of(f"{weight} * triplet")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"terms": []}, "at least one term"),
        ({"terms": ["a"], "version": 2}, "not 'version'"),
        ({"terms": [{"weight": 2}]}, "with the key 'loss'"),
        ({"terms": [{"loss": "a", "minner": "b"}]}, "not 'minner'"),
        ({"terms": [{"loss": "a", "weight": "heavy"}]}, "a term's weight is a number"),
        ({"terms": [{"loss": {"part": "a", "margin": 1}}]}, "its arguments go under 'arguments'"),
        ({"loss": "a"}, "with the key 'part'"),
        (3, "a recipe is a string, plain data or a loss object"),
        (None, "a recipe is a string, plain data or a loss object"),
    ],
)
def test_data_of_another_shape_is_refused_in_a_sentence(data, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.of(data)
    assert message in str(caught.value)


def test_live_objects_compose_but_cannot_be_written_down():
    class Loss:
        def __call__(self): ...

    recipe = Recipe.of(Loss())
    assert not recipe.serialisable
    assert str(recipe) == "<Loss object>"
    with pytest.raises(RecipeError, match="live objects"):
        recipe.to_dict()
    assert not Recipe.of("triplet", miner=Loss()).serialisable
    assert Recipe.of("triplet", miner="hard").serialisable


def test_the_versions_of_the_plugins_ride_along_and_do_not_make_recipes_differ():
    recipe = Recipe.of("softmax").with_plugins({"margin": "0.1.0"})
    assert Recipe.from_yaml(recipe.to_yaml()).plugins == {"margin": "0.1.0"}
    assert recipe == Recipe.of("softmax")


def test_a_plugin_of_another_version_than_wrote_the_recipe_is_told():
    recipe = Recipe.of("softmax").with_plugins({"margin": "0.0.9", "gone": "7"})
    (problem,) = recipe.check(num_classes=2, embedding_size=2)
    version = metadata.version("nearfar-margin")
    told = f"the recipe was written with nearfar-margin 0.0.9, and {version} is installed: its parts may give other"
    assert (problem.severity, problem.message[: len(told)]) == ("warning", told)
    with pytest.warns(NearfarWarning, match=r"nearfar-margin 0\.0\.9") as warned:
        criterion = nearfar.compose(recipe, num_classes=2, embedding_size=2)
    assert [warning.filename for warning in warned] == [__file__]
    assert criterion.recipe.plugins == {"margin": version}
    assert not criterion.recipe.check(num_classes=2, embedding_size=2)


@pytest.mark.parametrize("plugins", ["pair", ["pair"], {"pair": 0.1}])
def test_plugins_of_a_recipe_that_are_no_versions_are_refused(plugins):
    with pytest.raises(RecipeError, match="the 'plugins' of a recipe are the version of each namespace"):
        Recipe.of({"terms": ["softmax"], "plugins": plugins})


identifiers = st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True).filter(
    lambda name: (
        name not in {"inf", "nan", "miner", "reducer", "distance", "preset", "part"}
        and name.isidentifier()
        and not keyword.iskeyword(name)
    )
)
literals = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)


def parts(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(
        Part,
        identifiers,
        st.lists(values, max_size=2).map(tuple),
        st.dictionaries(identifiers, values, max_size=3),
    )


values = st.recursive(
    literals,
    lambda inner: parts(inner) | st.lists(inner, max_size=3) | st.dictionaries(identifiers, inner, max_size=2),
    max_leaves=6,
)
recipes = st.lists(
    st.builds(Term, parts(values), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=3
).map(lambda terms: Recipe(tuple(terms)))


@given(recipes)
@example(Recipe((Term(Part("a", ("1e3", ".5", "1", "no", "2020-01-01"))),)))
@example(Recipe((Term(Part("a", ("\x85\u2028",))),)))
def test_every_recipe_survives_being_written_and_read(recipe):
    assert Recipe.of(str(recipe)) == recipe
    assert Recipe.of(recipe.to_dict()) == recipe
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@given(st.text(max_size=40))
def test_no_string_raises_anything_but_a_recipe_error(text):
    with contextlib.suppress(RecipeError):
        Recipe.of(text)


def test_nan_is_read_and_written():
    (term,) = Recipe.of("x(a=nan)").terms
    assert math.isnan(term.loss.named["a"])
    assert str(Recipe((term,))) == "x(a=nan)"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("5E+2", 500.0), ("1.5e3", 1500.0), (".5", 0.5), ("1", 1)]
)
def test_numbers_in_yaml_are_numbers(text, value):
    assert load(f"a: {text}", source="x") == {"a": value}


def test_yaml_that_is_none_is_refused_with_file_and_line():
    with pytest.raises(ConfigError, match=r"run\.yaml, line 2"):
        load("a: 1\nb: [", source="run.yaml")
    with pytest.raises(ConfigError, match=r"run\.yaml, line 2: the key 'a' is given twice"):
        load("a: 1\na: 2", source="run.yaml")


def test_a_live_object_is_equal_to_itself_only():
    assert Live(3) != Live(3)


def test_a_long_sum_is_read_and_a_deep_recipe_is_refused():
    assert len(Recipe.of(" + ".join(["circle"] * 1500)).terms) == 1500
    for deep in ("circle(margin=" + "-" * 3000 + "1)", " + ".join(["circle"] * 50000)):
        with pytest.raises(RecipeError, match=r"recipe 'circle.{34}' … cannot be read: it is too long, or nested too"):
            Recipe.of(deep)
