"""The criterion: terms weighted and added, inputs routed, state where torch looks for it."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import nearfar
from nearfar.errors import ArgumentError, InputError, NearfarWarning, RecipeError, UnknownPart
from nearfar.nn import Criterion, EmbeddingLoss, IndexSelection, Loss, Miner, element_terms
from nearfar.nn.criterion import CriterionTerm
from nearfar.recipe import Recipe


class Norms(EmbeddingLoss):
    """The squared lengths of embeddings, times a learned scale, counted in a buffer."""

    def __init__(self, power: float = 2.0, *, reducer: nn.Module | None = None) -> None:
        super().__init__(reducer=reducer)
        self.power = power
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def default_distance(self):
        return None

    def terms(self, batch):
        self.calls += 1
        self.seen = batch
        weights = None if batch.selection is None else batch.selection.weights(len(batch.embeddings))
        return element_terms(self.scale * batch.embeddings.norm(dim=1) ** self.power, weights=weights)


class First(Miner):
    """Selects the first element."""

    def choose(self, batch, distance, loss):
        self.loss = loss
        zero = torch.zeros(1, dtype=torch.int64)
        return IndexSelection((zero, zero, zero))


class Difference(Loss):
    """The absolute difference of two boxes."""

    def terms(self, pred, target):
        return element_terms((pred - target).abs().sum(1))


class Weighted(Loss):
    """The absolute difference of two boxes, weighted where there are weights."""

    def forward(self, pred_boxes, target_boxes, box_weights=None, box_normalizer=None):
        return self.reduce(self.terms(pred_boxes, target_boxes, box_weights, box_normalizer), pred_boxes, None)

    def terms(self, pred, target, weights=None, normalizer=None):
        return element_terms((pred - target).abs().sum(1), weights=weights, normalizer=normalizer)


@pytest.fixture(autouse=True)
def _registered():
    optional = ("box_weights", "box_normalizer")
    nearfar.register("weighted", Weighted, inputs=("pred_boxes", "target_boxes"), optional_inputs=optional)
    nearfar.register("norms", Norms, accepts=("weights", "triplets"), uses_norm=True)
    nearfar.register("first", First)
    nearfar.register("difference", Difference, inputs=("pred_boxes", "target_boxes"))
    yield
    for name, kind in [("norms", "loss"), ("first", "miner"), ("difference", "loss"), ("weighted", "loss")]:
        nearfar.unregister(name, kind=kind)


X = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
Y = torch.tensor([0, 1])
BOXES = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def test_terms_are_weighted_and_added():
    criterion = nearfar.compose("norms + 0.5 * norms(power=1.0)")
    assert criterion(X, Y).item() == 13 + 0.5 * 3
    assert {name: value.item() for name, value in criterion.last.items()} == {"norms": 13.0, "norms_2": 3.0}
    assert not any(value.requires_grad for value in criterion.last.values())


def test_the_reducer_is_honoured():
    assert nearfar.compose("norms", reducer="sum")(X, Y).item() == 26
    assert nearfar.compose("norms(reducer=sum) + norms")(X, Y).item() == 39


def test_the_miner_selects_for_its_own_term():
    criterion = nearfar.compose("norms(miner=first) + norms")
    assert criterion(X, Y).item() == 12.5 + 13
    assert criterion.miners["norms"].loss is criterion.losses["norms"]


def test_a_reference_set_reaches_the_loss():
    criterion = nearfar.compose("norms")
    reference = torch.randn(5, 2)
    criterion(X, Y, ref_emb=reference, ref_labels=torch.arange(5))
    assert criterion.losses["norms"].seen.reference is reference


def test_what_losses_learn_and_keep_is_where_torch_looks_for_it():
    criterion = nearfar.compose("norms + norms")
    assert [name for name, _ in criterion.named_parameters()] == ["losses.norms.scale", "losses.norms_2.scale"]
    criterion(X, Y)
    again = nearfar.compose("norms + norms")
    again.load_state_dict(criterion.state_dict())
    assert again.losses["norms"].calls.item() == 1


def test_an_unreduced_criterion_of_one_term_gives_every_value():
    assert nearfar.compose("norms", reducer="none")(X, Y).tolist() == [25.0, 1.0]
    assert nearfar.compose("2 * norms", reducer="none")(X, Y).tolist() == [50.0, 2.0]


def test_an_unreduced_term_cannot_be_added_to_another():
    with pytest.raises(RecipeError, match="left unreduced by none, so it cannot be added"):
        nearfar.compose("norms(reducer=none) + norms")


def test_inputs_of_one_kind_are_given_in_their_order():
    criterion = nearfar.compose("difference + 2 * difference")
    assert criterion.inputs == ("pred_boxes", "target_boxes")
    assert criterion(BOXES, BOXES + 1).item() == 12
    assert criterion(pred_boxes=BOXES, target_boxes=BOXES).item() == 0


def test_mixed_inputs_are_given_by_name_and_each_term_gets_its_own():
    criterion = nearfar.compose("difference + norms")
    assert criterion.is_mixed
    value = criterion(pred_boxes=BOXES, target_boxes=BOXES + 1, embeddings=X, labels=Y)
    assert value.item() == 4 + 13
    with pytest.raises(InputError, match="mixes inputs, so call it by keyword: pred_boxes=…, target_boxes=…, emb"):
        criterion(BOXES, BOXES, X, Y)


def test_optional_inputs_are_given_by_name_and_reach_the_terms_that_name_them():
    criterion = nearfar.compose("weighted + 2 * difference")
    two = BOXES.repeat(2, 1)
    assert criterion.inputs == ("pred_boxes", "target_boxes")
    assert criterion.optional_inputs == ("box_weights", "box_normalizer")
    assert not criterion.is_mixed
    assert criterion(two, two + 1).item() == 4 + 2 * 4
    weights = torch.tensor([1.0, 0.5])
    assert criterion(two, two + 1, box_weights=weights, box_normalizer=3).item() == (4 + 2) / 3 + 2 * 4
    assert criterion(two, two + 1, box_weights=None).item() == 12


def test_optional_inputs_reach_a_live_loss_that_names_them():
    loss = Weighted()
    loss.inputs, loss.optional_inputs = ("pred_boxes", "target_boxes"), ("box_normalizer",)
    assert nearfar.compose(loss)(BOXES, BOXES + 1, box_normalizer=8.0).item() == 0.5


@pytest.mark.parametrize(
    ("recipe", "args", "kwargs", "message"),
    [
        ("difference", (BOXES, BOXES), {"box_weights": Y}, "takes no input 'box_weights'; it takes pred_boxes, target"),
        ("weighted", (BOXES, BOXES), {"box_weight": Y}, "'box_weight'; it takes pred_boxes, target_boxes, box_weights"),
        ("weighted", (BOXES, BOXES, Y), {}, "takes 2 inputs (pred_boxes, target_boxes); got 3"),
        ("norms", (X,), {}, "this criterion needs labels"),
        ("norms", (X, Y, None, None, None, None), {}, "takes 5 inputs"),
        ("norms", (X, Y), {"labels": Y}, "'labels' was given twice"),
        ("norms", (X, Y), {"boxes": Y}, "takes no input 'boxes'; it takes embeddings, labels"),
        ("norms(miner=first)", (X, Y, (Y, Y, Y)), {}, "has its own miner"),
        ("difference", (BOXES,), {}, "this criterion needs target_boxes"),
        ("difference", (BOXES, BOXES.tolist()), {}, "Difference: input 1 is no tensor but a list"),
    ],
)
def test_calls_that_do_not_fit_are_refused(recipe, args, kwargs, message):
    with pytest.raises(InputError) as caught:
        nearfar.compose(recipe)(*args, **kwargs)
    assert message in str(caught.value)


def test_live_objects_compose():
    loss, miner = Norms(), First()
    criterion = nearfar.compose(loss)
    assert criterion(X, Y).item() == 13
    assert criterion.losses["Norms"] is loss
    assert not criterion.recipe.serialisable
    criterion = nearfar.compose("norms", miner=miner)
    assert criterion(X, Y).item() == 12.5
    with pytest.raises(RecipeError, match="is an object already"):
        nearfar.compose(loss, miner="first")


def test_a_criterion_knows_the_recipe_that_makes_it_again():
    criterion = nearfar.compose("norms(power=1.0)", reducer="sum")
    again = nearfar.compose(str(criterion.recipe))
    assert again(X, Y).item() == criterion(X, Y).item() == 6
    assert set(criterion.recipe.plugins) == {"core", "local"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["deepcopy", "pickle"])
def test_a_criterion_can_be_copied(copied):
    criterion = Criterion([CriterionTerm("norms", Norms(), ("embeddings", "labels"), 2.0, First())])
    again = copied(criterion)
    assert again(X, Y).item() == criterion(X, Y).item()
    assert again.losses["norms"].scale is not criterion.losses["norms"].scale
    again.losses["norms"].scale.data.fill_(3.0)
    assert again(X, Y).item() == 3 * criterion(X, Y).item()


def test_statistics_are_collected_when_asked_for():
    criterion = nearfar.compose("norms")
    criterion(X, Y)
    assert criterion.statistics() == {}
    criterion.collect_stats()
    criterion(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), Y)
    assert {name: value.item() for name, value in criterion.statistics().items()} == {
        "norms/loss/terms": 2,
        "norms/loss/active": 0.5,
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_leave_loss_and_parameters_in_single(dtype):
    criterion = nearfar.compose("norms")
    assert criterion(X.to(dtype), Y).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert criterion(X, Y).dtype == torch.float32
    assert criterion.losses["norms"].scale.dtype == torch.float32


def test_weights_may_change_between_calls():
    criterion = nearfar.compose("norms + 0.5 * norms(power=1.0)")
    criterion.weights["norms"] = 0.0
    assert criterion(X, Y).item() == 0.5 * 3


def test_statistics_are_those_of_losses_inside_others_too():
    criterion = nearfar.compose("matryoshka(contrastive, dims=[2, 4]) + gather(contrastive)")
    criterion.collect_stats()
    x, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) // 2
    criterion(x, labels)
    found = criterion.statistics()
    plain = nearfar.create_loss("contrastive")
    plain.collect_stats = True
    for width, place in ((2, "matryoshka/0"), (4, "matryoshka/1"), (4, "gather")):
        plain(x[:, :width], labels)
        assert plain.statistics.keys() == {
            f"{s}/{name}" for s in ("positive", "negative") for name in ("terms", "active")
        }
        for name, value in plain.statistics.items():
            assert found.pop(f"{place}/{name}") == value
    assert found == {}


def test_what_is_remembered_is_of_the_last_call():
    criterion = nearfar.compose("norms")
    criterion.collect_stats()
    criterion(X, Y)
    criterion.collect_stats(False)
    assert criterion.statistics() == {}
    criterion.losses["norms"].reducer = nearfar.create_reducer("none")
    criterion(X, Y)
    assert criterion.last == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], Y), "embeddings must be a tensor"),
        ((X, Y, None, 5), "ref_emb must be a tensor"),
        ((X, Y, None, X, Y.flip(0)), "ref_emb is the batch itself, but ref_labels are not its labels"),
    ],
)
@pytest.mark.parametrize("miner", [None, "first"])
def test_what_is_no_tensor_is_refused_by_name(miner, arguments, message):
    with pytest.raises(InputError) as caught:
        nearfar.compose("norms", miner=miner)(*arguments)
    assert message in str(caught.value)


def test_warnings_of_a_recipe_are_told_and_composition_goes_on():
    nearfar.register("dubious", Norms, defects=("it is dubious",))
    try:
        with pytest.warns(NearfarWarning, match=r"local\.dubious: it is dubious"):
            assert nearfar.compose("dubious")(X, Y).item() == 13
    finally:
        nearfar.unregister("dubious")


def test_several_problems_are_listed_together():
    with pytest.raises(RecipeError) as caught:
        nearfar.compose("norms(pwer=1) + nroms")
    assert len(caught.value.problems) == 2
    assert "did you mean 'power'?" in str(caught.value)
    assert "did you mean 'norms'" in str(caught.value)


def test_a_constructor_that_refuses_is_quoted():
    class Picky(Norms):
        def __init__(self, size: int) -> None:
            raise ValueError("size must be even")

    nearfar.register("picky", Picky)
    try:
        with pytest.raises(
            ArgumentError, match=r"local\.picky\(size=3\) could not be made: ValueError: size must be even"
        ):
            nearfar.compose("picky(size=3)")
    finally:
        nearfar.unregister("picky")


def test_parts_are_made_one_by_one_too():
    assert isinstance(nearfar.create_loss("norms", power=1.0), Norms)
    assert isinstance(nearfar.create_miner("first"), First)
    assert repr(nearfar.create_distance("euclidean(normalize=False)")) == "Euclidean(normalize=False)"
    with pytest.raises(ArgumentError, match="no parameter 'normalise'; did you mean 'normalize'"):
        nearfar.create_distance("euclidean", normalise=True)
    with pytest.raises(UnknownPart, match="no reducer is called 'maen'; did you mean 'mean'"):
        nearfar.create_reducer("maen")


def test_terms_that_are_none_are_told_with_what_belongs_there():
    class Forgetful(Norms):
        def terms(self, batch):
            return 3

    with pytest.raises(ArgumentError, match=r"Forgetful\.terms returned int; it must return Terms"):
        Forgetful()(X, Y)


def test_a_loss_without_terms_is_told_so():
    class Unfinished(EmbeddingLoss):
        """Says nothing."""

    with pytest.raises(ArgumentError, match="Unfinished has no method terms"):
        Unfinished()(X, Y)


def test_a_term_that_is_not_selected_for_has_a_usable_gradient():
    x = X.clone().requires_grad_()
    empty = torch.zeros(0, dtype=torch.int64)
    criterion = nearfar.compose("norms")
    criterion(x, Y, (empty, empty, empty)).backward()
    assert (x.grad == 0).all()


def test_composing_warns_of_nothing_when_nothing_is_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nearfar.compose("norms", miner="first", reducer="mean")


def test_a_weight_that_was_changed_is_in_the_recipe():
    criterion = nearfar.compose("norms + 0.5 * norms(power=1.0)", miner="first")
    first, second = criterion.weights
    criterion.weights[second] = 0.25
    again = nearfar.compose(Recipe.from_yaml(criterion.recipe.to_yaml()))
    assert dict(again.weights) == {first: 1.0, second: 0.25}


@pytest.mark.parametrize(
    ("name", "weight", "said"),
    [
        ("nroms", 1.0, "no term is called 'nroms'; there are norms"),
        ("norms", "a", "finite number; got 'a'"),
        ("norms", float("nan"), "finite number; got nan"),
        ("norms", True, "finite number; got True"),
    ],
)
def test_a_weight_of_no_term_and_one_that_is_no_number_are_refused(name, weight, said):
    with pytest.raises(ArgumentError, match=said):
        nearfar.compose("norms").weights[name] = weight


def test_a_weight_that_moves_stays_a_schedule_in_the_recipe():
    criterion = nearfar.compose("linear(0, 1, steps=4) * norms")
    criterion(X, Y)
    assert "linear" in str(criterion.recipe)


def test_a_copy_has_weights_of_its_own():
    criterion = nearfar.compose("norms")
    for other in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        other.weights["norms"] = 3.0
        assert (criterion.weights["norms"], str(other.recipe)) == (1.0, "3.0 * norms")


def test_numbers_of_numpy_are_numbers():
    criterion = nearfar.compose("arcface", num_classes=np.int64(8), embedding_size=np.int32(4))
    assert criterion.losses["arcface"].weight.shape == (8, 4)
    loss = nearfar.create_loss("arcface", num_classes=8, embedding_size=4, margin=np.float32(0.25))
    assert type(loss.margin) is float


def test_an_argument_given_beside_the_recipe_is_told_where_it_belongs():
    with pytest.raises(RecipeError, match=r"it is an argument of triplet, so write triplet\(margin=…\)"):
        nearfar.compose("triplet", margin=0.2)


@pytest.mark.parametrize(
    "recipe", ["sup_con(miner=semihard)", "contrastive(miner=easy)", "matryoshka(sup_con(miner=semihard), dims=[2])"]
)
def test_a_miner_without_what_it_borrows_is_refused_before_anything_is_made(recipe):
    with pytest.raises(RecipeError, match="has no margin of its own, nor has"):
        nearfar.compose(recipe)
    nearfar.compose(recipe.replace("semihard", "semihard(margin=0.1)").replace("easy", "easy(margin=0.1)"))
