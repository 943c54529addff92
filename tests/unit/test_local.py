"""Parts of this session: registered by a notebook, shown as the plugin ``local``."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import nearfar
from nearfar.cli import cli
from nearfar.errors import RegistrationError
from nearfar.registry import default_registry


class MyLoss(nearfar.EmbeddingLoss):
    """A loss of my own."""

    def __init__(self, num_classes: int, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(distance=distance, reducer=reducer)


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


@pytest.mark.parametrize(
    ("name", "target", "fields", "message"),
    [
        ("my-loss", MyLoss, {}, "'my-loss' is not an identifier"),
        ("mine", 3, {}, "must be registered with a class"),
        ("mine", object, {}, "what kind of part is 'mine'? say kind="),
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
