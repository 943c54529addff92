"""Parts of this session: registered by a notebook, shown as the plugin ``local``."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

import nearfar
from nearfar.cli import cli
from nearfar.errors import ArgumentError, RecipeError, RegistrationError
from nearfar.registry import default_registry


class MyLoss(nearfar.EmbeddingLoss):
    """A loss of my own."""

    def __init__(self, num_classes: int, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(distance=distance, reducer=reducer)


def on_embeddings(embeddings, labels, margin=0.2):
    raise AssertionError("nobody calls it")


def on_tensors(first: torch.Tensor, second: torch.Tensor):
    raise AssertionError("nobody calls it")


def of_two_classes(margin: float = 0.5) -> MyLoss:
    """A loss of two classes."""
    return MyLoss(2, margin)


@pytest.fixture
def my_loss():
    nearfar.register("my_loss", MyLoss, accepts=("triplets",))
    yield
    nearfar.unregister("my_loss")


def test_what_the_constructor_says_need_not_be_repeated(my_loss):
    spec = default_registry().resolve("loss", "my_loss").spec
    assert spec.summary == "A loss of my own."
    assert spec.needs == ("num_classes",)
    assert spec.distances == ("*",)
    assert spec.accepts == ("triplets",)


def test_it_is_listed_and_shown_as_local(my_loss):
    assert "my_loss" in nearfar.list_losses("my_*")
    shown = CliRunner().invoke(cli, ["show", "my_loss"])
    assert "local.my_loss  loss, this session" in shown.output
    assert "margin = 0.5" in shown.output


def test_it_can_be_registered_with_a_decorator():
    @nearfar.register("decorated")
    class Decorated(nearfar.Miner):
        """A miner."""

    try:
        assert default_registry().resolve("miner", "decorated").target is Decorated
    finally:
        nearfar.unregister("decorated", kind="miner")


def test_a_function_that_makes_a_part_is_registered_as_a_class_is():
    nearfar.register("of_two", of_two_classes, kind="loss")
    try:
        assert isinstance(nearfar.create_loss("of_two", margin=0.25), MyLoss)
        with pytest.raises(RecipeError, match="no parameter 'margn'; did you mean 'margin'"):
            nearfar.compose("of_two(margn=1)")
    finally:
        nearfar.unregister("of_two")


def test_a_function_that_makes_no_module_is_told_when_it_is_called():
    def makes_a_number(margin: float = 0.5):
        return margin

    nearfar.register("of_none", makes_a_number, kind="reducer")
    try:
        with pytest.raises(
            ArgumentError, match=r"local\.of_none makes an object of float, and a reducer is a torch module"
        ):
            nearfar.create_reducer("of_none")
    finally:
        nearfar.unregister("of_none", kind="reducer")


@pytest.mark.parametrize(
    ("name", "target", "fields", "message"),
    [
        ("my-loss", MyLoss, {}, "'my-loss' is not an identifier"),
        ("mine", 3, {}, "must be registered with a class"),
        ("mine", object, {"kind": "loss"}, "with a class of torch modules, and object is none"),
        ("mine", MyLoss(3), {}, "with a class of torch modules, not with an object of MyLoss"),
        ("mine", lambda: MyLoss(3), {"kind": "loss"}, "not with a lambda"),
        ("mine", on_embeddings, {"kind": "loss"}, "; on_embeddings is itself called with embeddings, labels: write"),
        ("mine", on_tensors, {"kind": "distance"}, "; on_tensors is itself called with first, second: write it as the"),
        ("mine", torch.nn.Identity, {}, "what kind of part is 'mine'? say kind="),
        ("mine", MyLoss, {"kind": "lossy"}, "what kind of part is 'mine'? say kind="),
        ("mine", MyLoss, {"acepts": ()}, "the spec of the loss 'mine' cannot be made"),
        ("mine", MyLoss, {"accepts": ("quads",)}, "accepts has 'quads'"),
    ],
)
def test_what_cannot_be_registered_is_refused(name, target, fields, message):
    with pytest.raises(RegistrationError) as caught:
        nearfar.register(name, target, **fields)
    assert message in str(caught.value)
    assert name not in nearfar.list_losses()
