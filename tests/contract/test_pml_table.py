"""The table of the plugin ``pml`` is complete, and true of the pytorch-metric-learning that is installed."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners, reducers

from nearfar import core, pml
from nearfar.pml.names import snake_case

CLASSES, DIM = 4, 8
#: Arguments for the parts that cannot do without.
EXAMPLES = {
    "arc_face_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "cos_face_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "sphere_face_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "sub_center_arc_face_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "large_margin_softmax_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "normalized_softmax_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "p2s_grad_loss": {"num_classes": CLASSES, "descriptors_dim": DIM},
    "proxy_nca_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "proxy_anchor_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "soft_triple_loss": {"num_classes": CLASSES, "embedding_size": DIM},
    "manifold_loss": {"l": DIM, "K": CLASSES},
    "ranked_list_loss": {"margin": 0.4, "Tn": 1},
    "cross_batch_memory": {"loss": losses.ContrastiveLoss(), "embedding_size": DIM, "memory_size": 64},
    "self_supervised_loss": {"loss": losses.NTXentLoss()},
    "multiple_losses": {"losses": [losses.ContrastiveLoss(), losses.NTXentLoss()]},
    "uniform_histogram_miner": {"num_bins": 3, "pos_per_bin": 2, "neg_per_bin": 2},
    "distance_weighted_miner": {"nonzero_loss_cutoff": 2.0},
    "threshold_reducer": {"low": 0.1},
    "class_weighted_reducer": {"weights": torch.arange(1.0, CLASSES + 1)},
    "multiple_reducers": {"reducers": {"loss": reducers.SumReducer()}},
    "batched_distance": {"distance": distances.LpDistance()},
}
#: Arguments with which a loss emits all that it can.
OUTSPOKEN = {"margin_loss": {"learn_beta": True}}
#: Losses that check no distance, and give nonsense on one that the table does not list.
UNENFORCED = {"ranked_list_loss", "histogram_loss", "manifold_loss"}

MODULES = {"loss": losses, "miner": miners, "reducer": reducers, "distance": distances}
LOSSES, MINERS = pml.nearfar_losses(), pml.nearfar_miners()
REDUCERS, DISTANCES = pml.nearfar_reducers(), pml.nearfar_distances()
SPECS = {"loss": LOSSES, "miner": MINERS, "reducer": REDUCERS, "distance": DISTANCES}
EVERY = [spec for specs in SPECS.values() for spec in specs]
PLAIN = [spec for spec in LOSSES if spec.family != "wrapper"]
LABELS = torch.arange(CLASSES).repeat_interleave(3)

pytestmark = [
    # HistogramLoss indexes with lists of lists, which torch is about to read differently.
    pytest.mark.filterwarnings("ignore:.*non-tuple sequence:UserWarning"),
    # LargeMarginSoftmaxLoss and SphereFaceLoss hand tensors to scipy, which numpy 2 finds old-fashioned.
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),
]


def each(specs):
    return pytest.mark.parametrize("spec", specs, ids=lambda spec: spec.name)


def class_of(spec):
    module, _, name = spec.target.partition(":")
    return getattr(importlib.import_module(module), name)


def make(spec, **arguments):
    torch.manual_seed(0)
    return class_of(spec)(**EXAMPLES.get(spec.name, {}) | arguments)


def batch(seed=0):
    """Loose clusters of one class each, so that no part of a loss vanishes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, DIM, generator=generator)
    return centres[LABELS] + torch.randn(len(LABELS), DIM, generator=generator)


def call(spec, loss, x, labels=LABELS, **arguments):
    """The loss of ``x`` with the inputs that its spec names."""
    torch.manual_seed(1)
    match spec.inputs:
        case ("embeddings", "labels"):
            return loss(x, labels, **arguments)
        case ("embeddings", "ref_emb"):
            return loss(x, **{"ref_emb": batch(9)} | arguments)
        case ("embeddings",):
            return loss(x, **arguments)
        case ("first_view", "second_view"):
            return loss(x, batch(9), **arguments)
    raise AssertionError(spec.inputs)


def full_name(part):
    return f"pml.{snake_case(type(part).__name__)}"


# --- complete ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPECS)
def test_every_public_class_is_in_the_table_and_nothing_else(kind):
    public = {name for name, value in vars(MODULES[kind]).items() if inspect.isclass(value)}
    assert {spec.aliases[0] for spec in SPECS[kind]} == public - pml.LEFT_OUT.keys()


@pytest.mark.parametrize("name", pml.LEFT_OUT)
def test_what_is_left_out_is_there_but_is_no_part(name):
    [left_out] = [getattr(module, name) for module in MODULES.values() if hasattr(module, name)]
    is_mixin = not issubclass(left_out, torch.nn.Module)
    is_abstract = any("raise NotImplementedError" in inspect.getsource(base) for base in left_out.__mro__[:-1])
    assert is_mixin if "mixin" in pml.LEFT_OUT[name] else is_abstract


# --- every kind -------------------------------------------------------------------------------------------------


@each(EVERY)
def test_the_target_is_the_defining_module_of_that_class(spec):
    target = class_of(spec)
    assert f"{target.__module__}:{target.__name__}" == spec.target


@each(EVERY)
def test_what_a_part_needs_its_constructor_takes(spec):
    parameters = {name for base in class_of(spec).__mro__ for name in inspect.signature(base.__init__).parameters} - {
        "self",
        "args",
        "kwargs",
    }
    thresholds = getattr(spec, "thresholds", {})
    assert {*spec.needs, *thresholds} <= parameters
    for name in spec.needs:
        without = {key: value for key, value in EXAMPLES[spec.name].items() if key != name}
        with pytest.raises((TypeError, KeyError), match=name):
            class_of(spec)(**without)


# --- losses -----------------------------------------------------------------------------------------------------


@each(LOSSES)
def test_a_loss_runs_on_the_inputs_that_it_names(spec):
    value = call(spec, make(spec), batch())
    assert value.numel() == 1
    assert torch.isfinite(value).all()
    assert value != 0


@each(PLAIN)
def test_the_default_distance_of_a_loss(spec):
    if spec.distances:
        assert full_name(make(spec).distance) == spec.default_distance
    else:
        assert spec.default_distance == ""


@each([spec for spec in PLAIN if spec.distances])
@pytest.mark.parametrize("distance", [d for d in DISTANCES if d.name != "batched_distance"], ids=lambda d: d.name)
def test_a_loss_takes_the_distances_that_it_lists(spec, distance):
    if spec.distances == ("*",) or f"pml.{distance.name}" in spec.distances:
        assert torch.isfinite(call(spec, make(spec, distance=make(distance)), batch()))
    elif spec.name not in UNENFORCED:
        with pytest.raises(AssertionError):
            make(spec, distance=make(distance))


@each([spec for spec in PLAIN if spec.distances])
@pytest.mark.parametrize("distance", core.nearfar_distances(), ids=lambda d: d.name)
def test_a_loss_takes_the_distances_of_the_core_that_it_lists(spec, distance):
    if spec.distances == ("*",) or f"core.{distance.name}" in spec.distances:
        assert torch.isfinite(call(spec, make(spec, distance=class_of(distance)()), batch()))
    elif spec.name not in UNENFORCED:
        with pytest.raises(AssertionError):
            make(spec, distance=class_of(distance)())


@each([spec for spec in PLAIN if not spec.distances])
def test_a_loss_that_lists_no_distance_refuses_or_ignores_one(spec):
    try:
        other = make(spec, distance=distances.LpDistance(power=3))
    except ValueError:
        return
    assert torch.equal(call(spec, other, batch()), call(spec, make(spec), batch()))


@each([spec for spec in PLAIN if spec.reducible])
def test_the_default_reducer_of_a_loss(spec):
    reducer = make(spec).reducer
    parts = reducer.reducers.values() if isinstance(reducer, reducers.MultipleReducers) else [reducer]
    assert {full_name(part) for part in parts} == {spec.default_reducer}


@each(PLAIN)
def test_what_a_loss_emits(spec):
    loss = make(spec, reducer=reducers.DoNothingReducer(), **OUTSPOKEN.get(spec.name, {}))
    terms = call(spec, loss, batch()).values()
    kinds = dict.fromkeys(term["reduction_type"] for term in terms if torch.is_tensor(term["losses"]))
    assert tuple(kinds) == spec.emits


@each([spec for spec in LOSSES if not spec.reducible])
def test_a_loss_that_emits_a_reduced_value_asks_no_reducer(spec):
    assert spec.default_reducer == ""
    if spec.family == "wrapper":
        with pytest.raises(TypeError, match="reducer"):
            make(spec, reducer=reducers.SumReducer())
        return
    summed, averaged = (
        call(spec, make(spec, reducer=r()), batch()) for r in (reducers.SumReducer, reducers.MeanReducer)
    )
    assert torch.equal(summed, averaged)


#: Triplets within the batch that leave out most of it; the anchors' first positives are not all there.
MINED = (torch.tensor([0, 0, 4, 7]), torch.tensor([2, 2, 5, 8]), torch.tensor([3, 4, 0, 1]))


@each(PLAIN)
@pytest.mark.parametrize("indices", [MINED, (*MINED[:2], MINED[0], MINED[2])], ids=["triplets", "pairs"])
def test_a_loss_accepts_a_selection_if_it_heeds_one(spec, indices):
    everything = call(spec, make(spec), batch())
    try:
        selected = call(spec, make(spec), batch(), indices_tuple=indices)
    except (ValueError, TypeError):
        assert spec.accepts == ()
    else:
        assert {"pairs", "triplets"} <= set(spec.accepts)
        assert not torch.isclose(selected, everything)


@each([spec for spec in PLAIN if spec.accepts])
def test_a_loss_accepts_weights_if_an_empty_selection_is_to_it_no_selection(spec):
    empty = (torch.tensor([], dtype=torch.long),) * 3
    if "weights" in spec.accepts:
        assert torch.equal(call(spec, make(spec), batch(), indices_tuple=empty), call(spec, make(spec), batch()))
    elif spec.name != "threshold_consistent_margin_loss":  # an integer 0, which no reducer has made a tensor
        assert call(spec, make(spec), batch(), indices_tuple=empty) == 0


def test_multiple_losses_hand_a_selection_on():
    [spec] = [spec for spec in LOSSES if spec.name == "multiple_losses"]
    parts = losses.ContrastiveLoss()(batch(), LABELS, MINED) + losses.NTXentLoss()(batch(), LABELS, MINED)
    assert torch.equal(call(spec, make(spec), batch(), indices_tuple=MINED), parts)


@each(PLAIN)
def test_a_loss_takes_a_reference_set_if_it_heeds_one(spec):
    values = []
    try:
        for seed in (2, 3):
            reference = {"ref_emb": batch(seed)}
            if "labels" in spec.inputs:
                reference["ref_labels"] = LABELS.clone()
            values.append(call(spec, make(spec), batch(), **reference))
    except ValueError:
        assert not spec.reference
    else:
        assert spec.reference == (not torch.isclose(*values))


@each(LOSSES)
def test_a_loss_uses_the_norm_if_longer_embeddings_change_it(spec):
    loss, tripled = make(spec), make(spec)
    same = torch.isclose(call(spec, loss, batch()), call(spec, tripled, 3 * batch()), rtol=1e-4)
    assert spec.uses_norm == (not same)


@each([spec for spec in LOSSES if spec.inputs == ("embeddings", "labels")])
def test_a_loss_depends_on_the_order_if_a_shuffled_batch_changes_it(spec):
    shuffle = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(5))
    ordered = call(spec, make(spec), batch())
    shuffled = call(spec, make(spec), batch()[shuffle], LABELS[shuffle])
    assert spec.order_dependent == (not torch.isclose(ordered, shuffled, rtol=1e-4))


@each([*LOSSES, *MINERS])
def test_a_part_is_random_if_its_seed_changes_it(spec):
    def once(seed):
        part = make(spec)
        if spec.kind == "miner":
            torch.manual_seed(seed)
            return [index.tolist() for index in part(batch(), LABELS)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "manual_seed", lambda _, seed_all=torch.manual_seed: seed_all(seed))
            return call(spec, part, batch()).tolist()

    assert spec.random == (once(1) != once(2))


@each([spec for spec in PLAIN if spec.thresholds])
def test_pairs_cost_beyond_their_threshold_and_not_within_it(spec):
    """``positive``: tested where no negative is near; ``negative``: where all positives coincide."""
    noise = 0.2 * torch.randn(8, DIM, generator=torch.Generator().manual_seed(6))
    noise[:, 0] = 0
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    axis = F.one_hot(torch.tensor(0), DIM).float() * torch.where(labels == 0, 1, -1)[:, None]
    axis = axis + 0.3 * F.one_hot(torch.tensor(1), DIM)
    [distance] = [d for d in DISTANCES if f"pml.{d.name}" == spec.default_distance]
    near, far = (1.0, -1.0) if distance.similarity else (0.0, 5.0)
    near_but_for_a_margin = 0.3 if spec.name in ("margin_loss", "ranked_list_loss") else near
    for name, sort in spec.thresholds.items():
        x = axis + noise if sort == "positive" else axis
        strict, lenient = (near, far) if sort == "positive" else (far, near_but_for_a_margin)
        assert make(spec, **{name: strict})(x, labels) > 1e-3
        assert make(spec, **{name: lenient})(x, labels) == pytest.approx(0, abs=1e-5)


# --- miners -----------------------------------------------------------------------------------------------------


@each(MINERS)
def test_what_a_miner_produces(spec):
    selected = make(spec)(batch(), LABELS)
    assert {3: "triplets", 4: "pairs"}[len(selected)] == spec.produces
    assert len(selected[0]) > 0


@each(MINERS)
def test_the_default_distance_of_a_miner(spec):
    if spec.distances:
        assert full_name(make(spec).distance) == spec.default_distance
    else:
        assert spec.default_distance == ""


@each(MINERS)
@pytest.mark.parametrize("distance", [d for d in DISTANCES if d.name != "batched_distance"], ids=lambda d: d.name)
def test_a_miner_takes_the_distances_that_it_lists(spec, distance):
    if spec.distances == ("*",) or f"pml.{distance.name}" in spec.distances:
        assert len(make(spec, distance=make(distance))(batch(), LABELS)) in (3, 4)
    elif spec.distances:
        with pytest.raises(AssertionError):
            make(spec, distance=make(distance))
    else:
        default, other = make(spec), make(spec, distance=make(distance))
        pairs = zip(default(batch(), LABELS), other(batch(), LABELS), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@each(MINERS)
def test_a_miner_takes_a_reference_set_if_its_indices_reach_into_it(spec):
    larger, labels = torch.cat([batch(2), batch(3)]), LABELS.repeat(2)
    highest = max(int(make(spec)(batch(), LABELS, larger, labels)[position].max()) for position in (1, -1))
    assert spec.reference == (highest >= len(LABELS))


@each([spec for spec in MINERS if not spec.random])
def test_a_miner_depends_on_the_order_if_a_shuffled_batch_changes_its_choice(spec):
    shuffle = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(5))

    def chosen(selected):
        halves = (selected,) if len(selected) == 3 else (selected[:2], selected[2:])
        return [set(zip(*(index.tolist() for index in half), strict=True)) for half in halves]

    ordered = chosen(make(spec)(batch(), LABELS))
    shuffled = chosen([shuffle[index] for index in make(spec)(batch()[shuffle], LABELS[shuffle])])
    assert spec.order_dependent == (ordered != shuffled)


def test_pairs_are_mined_beyond_their_threshold():
    [spec] = [spec for spec in MINERS if spec.thresholds]
    assert spec.thresholds == {"pos_margin": "positive", "neg_margin": "negative"}
    all_positive, _, all_negative, _ = make(spec, pos_margin=0.0, neg_margin=2.1)(batch(), LABELS)
    no_positive, _, no_negative, _ = make(spec, pos_margin=2.1, neg_margin=0.0)(batch(), LABELS)
    assert (len(all_positive), len(all_negative)) == (24, 108)
    assert (len(no_positive), len(no_negative)) == (0, 0)


# --- reducers ---------------------------------------------------------------------------------------------------


@each(REDUCERS)
@pytest.mark.parametrize(("kind", "width"), [("element", 1), ("pos_pair", 2), ("neg_pair", 2), ("triplet", 3)])
def test_what_a_reducer_reduces(spec, kind, width):
    values = torch.tensor([0.5, 1.0, 2.0])
    indices = tuple(torch.arange(3) + i for i in range(width))
    term = {"losses": values, "reduction_type": kind, "indices": indices if width > 1 else indices[0], "divisor": 2}
    reducer = make(spec)
    if kind in spec.reduces:
        assert reducer({"loss": term}, batch(), LABELS) is not None
    else:
        with pytest.raises(NotImplementedError):
            reducer({"loss": term}, batch(), LABELS)


# --- distances --------------------------------------------------------------------------------------------------


def spread():
    """Embeddings with equal, opposite and other pairs among them."""
    x = batch(4)
    return torch.cat([x, x[:4], -x[:4]]).double()


SIMPLE = [spec for spec in DISTANCES if spec.name != "batched_distance"]


@each(SIMPLE)
def test_a_similarity_is_greatest_for_equal_embeddings(spec):
    distance = make(spec)
    assert spec.similarity == distance.is_inverted
    matrix = distance(spread())
    best = matrix.amax(dim=1) if spec.similarity else matrix.amin(dim=1)
    torch.testing.assert_close(matrix.diagonal(), best, rtol=0, atol=1e-7)
    torch.testing.assert_close(best, torch.full_like(best, spec.nearest), rtol=0, atol=1e-7)


@each(SIMPLE)
def test_the_range_of_a_distance_is_reached_and_kept(spec):
    least, greatest = spec.range
    matrix = make(spec)(spread())
    assert float(matrix.min()) == pytest.approx(least, abs=1e-7)
    if greatest < float("inf"):
        assert float(matrix.max()) == pytest.approx(greatest, abs=1e-7)
    else:
        nearly_constant = 1 + 1e-3 * spread()
        assert float(make(spec)(nearly_constant, spread()).max()) > 1e4


@each(SIMPLE)
def test_a_metric_is_symmetric_and_obeys_the_triangle_inequality(spec):
    matrix = make(spec)(spread())
    through = (matrix[:, :, None] + matrix[None, :, :]).amin(dim=1)
    is_metric = bool(torch.allclose(matrix, matrix.T) and (matrix <= through + 1e-9).all())
    assert spec.metric == (is_metric and not spec.similarity)
