"""Names: what answers to them, what is suggested, and what is refused."""

from __future__ import annotations

import pytest

from nearfar.contributions import RecipeSpec
from nearfar.discovery import Plugin
from nearfar.errors import AmbiguousPart, ArgumentError, DeprecatedName, RegistrationError, UnknownPart
from nearfar.registry import Registry, default_registry, list_losses
from nearfar.spec import KINDS, LossSpec, MinerSpec


def loss(name: str, **fields) -> LossSpec:
    return LossSpec(name=name, target="acme.losses:Loss", summary="A loss.", **fields)


def miner(name: str) -> MinerSpec:
    return MinerSpec(name=name, target="acme.miners:Miner", summary="A miner.", produces="pairs")


def plugin(namespace: str, *specs, **fields) -> Plugin:
    return Plugin(
        namespace=namespace, distribution=f"{namespace}-dist", version="1.0", module=namespace, specs=specs, **fields
    )


@pytest.fixture
def registry() -> Registry:
    return Registry(
        [
            plugin(
                "acme",
                loss("arcface", family="margin", aliases=("additive_angular",), deprecated=("arc_face",)),
                loss("triplet", family="triplet"),
                loss("v2"),
                loss("v10"),
                loss("boxy", inputs=("pred_boxes", "target_boxes")),
                miner("hard"),
            ),
            plugin("other", loss("triplet"), loss("face_off")),
            plugin("pml", loss("arc_face_loss", aliases=("ArcFaceLoss",)), loss("v2")),
            plugin("broken", status="failed", reason="ImportError: no module named x"),
        ]
    )


def names(registry: Registry, *args, **kwargs) -> list[str]:
    return [registry.short_name(entry) for entry in registry.find("loss", *args, **kwargs)]


@pytest.mark.parametrize("name", ["arcface", "acme.arcface", "additive_angular", "acme.additive_angular"])
def test_bare_names_full_names_and_aliases_all_answer(registry, name):
    assert registry.resolve("loss", name).full_name == "acme.arcface"


def test_names_come_in_natural_order_bare_where_that_is_enough(registry):
    assert names(registry, plugin="acme") == ["arcface", "boxy", "acme.triplet", "v2", "v10"]


@pytest.mark.parametrize(
    ("pattern", "filters", "expected"),
    [
        ("*face*", {}, ["arcface", "face_off", "pml.arc_face_loss"]),
        ("*FACE", {}, ["arcface"]),
        (["v*", "boxy"], {}, ["boxy", "v2", "v10", "pml.v2"]),
        ("*face*", {"exclude": "pml.*"}, ["arcface", "face_off"]),
        ("*", {"family": "triplet"}, ["acme.triplet"]),
        ("*", {"plugin": "other"}, ["face_off", "other.triplet"]),
        ("*", {"inputs": "pred_boxes"}, ["boxy"]),
        ("additive*", {}, ["arcface"]),
        ("acme.v*", {}, ["v2", "v10"]),
        ("nothing", {}, []),
    ],
)
def test_parts_are_found_by_pattern_and_filter(registry, pattern, filters, expected):
    assert names(registry, pattern, **filters) == expected


def test_a_filter_that_there_is_not_is_a_sentence_with_the_nearest():
    with pytest.raises(
        ArgumentError, match="no filter 'famly'; did you mean 'family'\\? parts are listed by exclude, "
    ):
        list_losses(famly="triplet")
    with pytest.raises(ArgumentError, match="no filter 'kind'; parts are listed by "):
        list_losses(kind="miner")


@pytest.mark.parametrize("pattern", [3, ["*face*", None]])
def test_a_pattern_that_is_none_is_a_sentence(pattern):
    with pytest.raises(ArgumentError, match=r"a pattern is a text such as '\*face\*', or several; got "):
        list_losses(pattern)


def test_a_bare_name_that_two_plugins_have_is_an_error_that_lists_both(registry):
    with pytest.raises(AmbiguousPart, match=r"write acme\.triplet or other\.triplet") as caught:
        registry.resolve("loss", "triplet")
    assert caught.value.suggestions == ("acme.triplet", "other.triplet")


def test_parts_of_the_bridge_answer_to_full_names_only(registry):
    assert registry.resolve("loss", "v2").full_name == "acme.v2"
    assert registry.resolve("loss", "pml.ArcFaceLoss").full_name == "pml.arc_face_loss"
    with pytest.raises(UnknownPart):
        registry.resolve("loss", "arc_face_loss")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arcfcae", "did you mean 'arcface'?"),
        ("broken.thing", "the plugin 'broken' is failed (ImportError: no module named x)"),
        ("absent.thing", "no plugin 'absent' is installed"),
        ("hard", "no loss is called 'hard'; there is a miner of that name, which goes into a loss: LOSS(miner=hard)"),
        ("zzzzzz", "`nearfar list` shows what there is"),
    ],
)
def test_an_unknown_name_is_answered_with_what_helps(registry, name, message):
    with pytest.raises(UnknownPart) as caught:
        registry.resolve("loss", name)
    assert message in str(caught.value)


def test_the_name_of_a_recipe_where_a_loss_is_wanted_is_answered_with_its_text():
    shown = RecipeSpec(name="usual", recipe="arcface + 0.1 * v2", summary="Both.", source="here")
    registry = Registry([plugin("acme", loss("arcface"), recipes=(shown,))])
    for name in ("usual", "acme.usual"):
        with pytest.raises(UnknownPart) as caught:
            registry.resolve("loss", name)
        assert str(caught.value) == (
            f"no loss is called {name!r}: it is a recipe, whose text is to be given: arcface + 0.1 * v2"
        )


def test_a_fragment_of_a_name_suggests_the_whole(registry):
    assert "arcface" in registry.suggest("loss", "face")


def test_a_former_name_works_and_warns_with_the_new_one(registry):
    with pytest.warns(DeprecatedName, match="'arc_face' is now called 'arcface'"):
        assert registry.resolve("loss", "arc_face").spec.name == "arcface"


def test_registering_in_process_makes_a_part_of_the_plugin_local(registry):
    registry.register(loss("mine"), object)
    assert registry.resolve("loss", "mine").full_name == "local.mine"
    assert [p.namespace for p in registry.plugins if p.status == "active"] == ["acme", "local", "other", "pml"]


def test_registering_a_name_again_replaces_the_part(registry):
    registry.register(loss("mine", family="old"), object)
    registry.register(loss("mine", family="new"), object)
    assert registry.resolve("loss", "mine").spec.family == "new"
    assert len(registry.find("loss", plugin="local")) == 1


def test_a_local_part_of_a_taken_bare_name_makes_it_ambiguous_rather_than_replacing_it(registry):
    registry.register(loss("arcface"), object)
    with pytest.raises(AmbiguousPart):
        registry.resolve("loss", "arcface")
    registry.unregister("loss", "arcface")
    assert registry.resolve("loss", "arcface").full_name == "acme.arcface"


def test_a_local_alias_may_not_take_the_name_of_another_local_part(registry):
    registry.register(loss("mine"), object)
    with pytest.raises(RegistrationError, match=r"taken by local\.mine"):
        registry.register(loss("yours", aliases=("mine",)), object)


def test_unregistering_what_is_not_there_is_an_error(registry):
    with pytest.raises(UnknownPart, match="this session registered no loss called 'ghost'"):
        registry.unregister("loss", "ghost")


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_bare_name_is_given_to_two_first_party_parts_of_a_kind(kind):
    seen: dict[str, str] = {}
    for entry in default_registry().entries(kind):
        for name in () if entry.namespace == "pml" else (entry.spec.name, *entry.spec.aliases, *entry.spec.deprecated):
            assert seen.setdefault(name, entry.full_name) == entry.full_name
    assert seen
