"""Each defect that the plugin ``pml`` warns of is still there, so that the warning goes when upstream mends it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

from nearfar import Recipe, pml
from nearfar.grammar import SLOTS
from nearfar.signature import read_target

SPECS = {
    spec.name: spec
    for specs in (pml.nearfar_losses(), pml.nearfar_miners(), pml.nearfar_reducers(), pml.nearfar_distances())
    for spec in specs
}
CLASSES, DIM = 4, 8
LABELS = torch.arange(CLASSES).repeat_interleave(3)
#: One vector a class, thrice: the best embeddings there are.
PERFECT = torch.eye(DIM)[LABELS]
CHECKS = []

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*non-tuple sequence:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),
]


def defect(words, *parts):
    """Register a check of the defect, of each of ``parts``, whose sentence contains ``words``."""

    def register(check):
        CHECKS.extend(pytest.param(part, words, check, id=f"{part}-{check.__name__}") for part in parts)
        return check

    return register


def noise(seed=0, rows=12):
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


def pairs(*quadruples):
    return tuple(torch.tensor(column) for column in zip(*quadruples, strict=True))


def class_named(part):
    return getattr(losses, SPECS[part].aliases[0])


# --- shared by several losses -----------------------------------------------------------------------------------


@defect(
    "one positive and one negative pair",
    "contrastive_loss",
    "signal_to_noise_ratio_contrastive_loss",
    "intra_pair_variance_loss",
    "tuplet_margin_loss",
    "lifted_structure_loss",
    "generalized_lifted_structure_loss",
    "multi_similarity_loss",
    "circle_loss",
    "nt_xent_loss",
    "sup_con_loss",
)
def single_pair_is_free(part):
    loss, x = class_named(part)(), noise()
    assert loss(x, LABELS, pairs((0, 1, 0, 3))) == 0
    assert loss(x, LABELS, pairs((0, 1, 0, 3), (3, 4, 3, 0))) > 0.001


@defect(
    "casts the learned weights",
    "arc_face_loss",
    "sub_center_arc_face_loss",
    "cos_face_loss",
    "sphere_face_loss",
    "large_margin_softmax_loss",
    "normalized_softmax_loss",
    "p2s_grad_loss",
    "proxy_nca_loss",
    "proxy_anchor_loss",
    "soft_triple_loss",
)
def weights_are_cast(part):
    size = "descriptors_dim" if part == "p2s_grad_loss" else "embedding_size"
    loss = class_named(part)(**{"num_classes": CLASSES, size: DIM})
    loss(noise().half(), LABELS)
    assert {parameter.dtype for parameter in loss.parameters()} == {torch.float16}


@defect("distance given to it is ignored", "p2s_grad_loss", "threshold_consistent_margin_loss")
def distance_is_ignored(part):
    arguments = {"descriptors_dim": DIM, "num_classes": CLASSES} if part == "p2s_grad_loss" else {}
    values = []
    for power in (1, 3):
        torch.manual_seed(0)
        loss = class_named(part)(**arguments, distance=distances.CosineSimilarity(power=power))
        values.append(loss(noise(), LABELS))
    assert values[0] == values[1] > 0


@defect("a column", "angular_loss", "lifted_structure_loss", "tuplet_margin_loss")
def a_column_meets_a_row(part):
    weights = torch.arange(1.0, CLASSES + 1)
    terms = class_named(part)(reducer=reducers.DoNothingReducer())(noise(), LABELS)["loss"]
    of_its_class = weights[LABELS[terms["indices"][0]]]
    value = class_named(part)(reducer=reducers.ClassWeightedReducer(weights))(noise(), LABELS)
    assert value == pytest.approx(float(terms["losses"].mean() * of_its_class.mean()), rel=1e-5)
    assert value != pytest.approx(float((terms["losses"].flatten() * of_its_class).mean()), rel=1e-3)
    with pytest.raises(RuntimeError, match="shape"):
        class_named(part)(reducer=reducers.PerAnchorReducer())(noise(), LABELS)


@defect("no variance", "signal_to_noise_ratio_contrastive_loss", "snr_distance")
def zeros_have_no_variance(part):
    x = noise()
    x[0] = 0
    assert distances.SNRDistance()(x)[0, 1].isinf()
    assert losses.SignalToNoiseRatioContrastiveLoss()(x, LABELS).isinf()


@defect("fixed list", "cross_batch_memory")
def memory_takes_no_subclass(part):
    with pytest.raises(Exception, match="not supported for Mine"):
        losses.CrossBatchMemory(type("Mine", (losses.ContrastiveLoss,), {})(), DIM)


@defect("fixed list", "self_supervised_loss")
def self_supervision_takes_no_subclass(part):
    with pytest.raises(Exception, match="not supported for Mine"):
        losses.SelfSupervisedLoss(type("Mine", (losses.ContrastiveLoss,), {})())


# --- margin and proxy -------------------------------------------------------------------------------------------


@defect("by position they raise KeyError", "sub_center_arc_face_loss")
def sub_centers_by_position(part):
    with pytest.raises(KeyError):
        losses.SubCenterArcFaceLoss(CLASSES, DIM)


@defect("return_dominant_centers=False", "sub_center_arc_face_loss")
def outliers_come_with_centres(part):
    loss = losses.SubCenterArcFaceLoss(num_classes=CLASSES, embedding_size=DIM)
    assert len(loss.get_outliers(noise(), LABELS, return_dominant_centers=False)) == 2


@defect("inference_mode", "sphere_face_loss", "large_margin_softmax_loss")
def inference_comes_before_training(part):
    loss, x = class_named(part)(CLASSES, DIM), noise().requires_grad_()
    with torch.inference_mode():
        loss(noise(), LABELS)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        loss(x, LABELS)
    loss = class_named(part)(CLASSES, DIM)
    loss(x, LABELS).backward()
    assert x.grad.isfinite().all()


@defect("zeros gives NaN", "p2s_grad_loss")
def zeros_have_no_direction(part):
    x, loss = noise(), losses.P2SGradLoss(DIM, CLASSES)
    assert loss(x, LABELS).isfinite()
    x[0] = 0
    assert loss(x, LABELS).isnan()


@defect("no proxy has", "proxy_nca_loss")
def unknown_labels_are_left_out(part):
    loss, x, labels = losses.ProxyNCALoss(CLASSES, DIM), noise(), LABELS.clone()
    labels[0] = CLASSES
    torch.testing.assert_close(loss(x, labels), loss(x[1:], LABELS[1:]))
    assert loss(x, LABELS + CLASSES).isnan()


@defect("class_weighted_reducer", "proxy_anchor_loss")
def proxies_are_read_as_samples(part):
    many = len(LABELS) + 1
    reducer = reducers.ClassWeightedReducer(torch.ones(many))
    with pytest.raises(IndexError):
        losses.ProxyAnchorLoss(many, DIM, reducer=reducer)(noise(), LABELS)


@defect("smaller than K", "manifold_loss")
def manifold_needs_large_batches(part):
    with pytest.raises(RuntimeError, match="negative dimension"):
        losses.ManifoldLoss(l=DIM)(noise())


# --- pairs ------------------------------------------------------------------------------------------------------


@defect("Duplicate positives can give NaN", "tuplet_margin_loss")
def duplicates_are_not_a_number(part):
    labels = torch.arange(4).repeat(2)
    values = [losses.TupletMarginLoss()(noise(seed, rows=4).repeat(2, 1), labels) for seed in range(20)]
    assert torch.stack(values).isnan().any()


@defect("order of the reference set", "lifted_structure_loss")
def lifted_structure_depends_on_the_order_of_the_reference(part):
    shuffle = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(1))

    def change(loss):
        reference, labels = noise(1), LABELS.clone()
        return (
            loss(noise(), LABELS, None, reference, labels)
            - loss(noise(), LABELS, None, reference[shuffle], labels[shuffle])
        ).abs()

    assert change(losses.NTXentLoss()) < 1e-5
    assert change(losses.LiftedStructureLoss()) > 1e-2


@defect("its own nearest neighbour", "nca_loss")
def a_sample_is_its_own_neighbour(part):
    loss, x = losses.NCALoss(softmax_scale=50), noise()
    reference = torch.cat([x, noise(1)])
    assert loss(x, LABELS) > 1
    assert loss(x, LABELS, None, reference, LABELS.repeat(2)) < 1e-3


@defect("no sample has a positive", "nca_loss")
def nobody_has_a_neighbour(part):
    assert losses.NCALoss()(noise(rows=4), torch.arange(4)).isnan()


@defect("9.7", "nt_xent_loss")
def half_precision_has_a_ceiling(part):
    terms = losses.NTXentLoss(reducer=reducers.DoNothingReducer())
    exact, half = (terms(x, LABELS)["loss"]["losses"].max() for x in (noise(), noise().half()))
    assert half == pytest.approx(9.7, abs=0.02)
    assert exact > 12


@defect("collapsed", "instance_loss")
def collapse_is_the_better_instance(part):
    loss, labels = losses.InstanceLoss(), torch.tensor([5, 5, 7, 7])
    perfect = torch.eye(DIM)[[0, 0, 1, 1]]
    assert loss(torch.ones(4, DIM), labels) < 2 < loss(perfect, labels)


@defect("A reference set is ignored", "threshold_consistent_margin_loss")
def threshold_consistency_ignores_the_reference(part):
    loss = losses.ThresholdConsistentMarginLoss()
    values = [loss(noise(), LABELS, None, noise(seed), LABELS) for seed in (1, 2)]
    assert values[0] == values[1] > 0
    with pytest.raises(IndexError):
        loss(noise(), LABELS, None, noise(1).repeat(2, 1), LABELS.repeat(2))


@defect("invariance term is always 0", "vic_reg_loss")
def one_view_has_no_invariance(part):
    terms = losses.VICRegLoss(reducer=reducers.DoNothingReducer())(noise())
    assert terms["invariance_loss"]["losses"].sum() == 0


# --- triplets ---------------------------------------------------------------------------------------------------


@defect("swap=True", "triplet_margin_loss")
def swapped_triplets_look_in_the_batch(part):
    loss = losses.TripletMarginLoss(swap=True)
    with pytest.raises(IndexError):
        loss(noise(rows=2), torch.tensor([0, 1]), None, noise(1, rows=8), torch.arange(2).repeat_interleave(4))


@defect("negatives are not", "angular_loss")
def angular_negatives_keep_their_length(part):
    loss = losses.AngularLoss()
    assert loss(10 * noise(), LABELS) > 2 * loss(noise(), LABELS)


@defect("Mined negatives are ignored", "angular_loss")
def angular_negatives_are_not_mined(part):
    loss, x = losses.AngularLoss(), noise()
    one = (torch.tensor([0]), torch.tensor([1]), torch.tensor([0]), torch.tensor([3]))
    every = (*one[:2], torch.zeros(9, dtype=torch.long), torch.arange(3, 12))
    assert loss(x, LABELS, one) == loss(x, LABELS, every) > 0


@defect("second backward", "dynamic_soft_margin_loss")
def the_histogram_keeps_its_graph(part):
    loss, x = losses.DynamicSoftMarginLoss(), noise().requires_grad_()
    loss(x, LABELS).backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss(x, LABELS).backward()


@defect("1.6 or more", "dynamic_soft_margin_loss")
def the_histogram_overflows(part):
    axis = torch.eye(DIM)[0]
    with pytest.raises(RuntimeError, match="out of bounds"):
        losses.DynamicSoftMarginLoss()(torch.stack([axis, -axis, axis]), torch.tensor([0, 0, 1]))


@defect("not saved with state_dict", "dynamic_soft_margin_loss")
def the_histogram_is_not_saved(part):
    loss = losses.DynamicSoftMarginLoss().eval()
    loss(noise(), LABELS)
    assert loss.hist_.sum() > 0
    assert not loss.state_dict()


# --- ranking ----------------------------------------------------------------------------------------------------


@defect("taken for the number of classes", "smooth_ap_loss")
def four_classes_of_two_are_not_two_of_four(part):
    loss = losses.SmoothAPLoss()
    square = torch.arange(3).repeat_interleave(3)
    assert loss(torch.eye(DIM)[square], square) < 0.01
    for labels in (torch.arange(4).repeat_interleave(2), torch.arange(2).repeat_interleave(4)):
        assert loss(torch.eye(DIM)[labels], labels) > 0.1


@defect("not in the order of their classes", "smooth_ap_loss")
def smooth_precision_needs_sorted_labels(part):
    labels = torch.arange(3).repeat(3)
    assert losses.SmoothAPLoss()(torch.eye(DIM)[labels], labels) > 0.1


@defect("embedding_regularizer", "smooth_ap_loss")
def a_regularizer_turns_the_sum_into_a_mean(part):
    labels = torch.arange(3).repeat_interleave(3)
    regularizer = {"embedding_regularizer": regularizers.LpRegularizer(), "embedding_reg_weight": 0}
    x = noise(rows=9)
    summed, averaged = (
        losses.SmoothAPLoss(reducer=r())(x, labels) for r in (reducers.SumReducer, reducers.MeanReducer)
    )
    regularized = losses.SmoothAPLoss(reducer=reducers.SumReducer(), **regularizer)(x, labels)
    assert regularized == pytest.approx(float(averaged), rel=1e-5)
    assert summed == pytest.approx(9 * float(averaged), rel=1e-5)


@defect("float16", "pnp_loss")
def half_precision_has_no_gradient(part):
    x = noise().half().requires_grad_()
    losses.PNPLoss()(x, LABELS).backward()
    assert x.grad.isnan().any()


@defect("cosine of 1", "histogram_loss")
def duplicates_are_beyond_the_histogram(part):
    with pytest.raises(RuntimeError, match="out of bounds"):
        losses.HistogramLoss()(PERFECT, LABELS)


@defect("at distance 0", "ranked_list_loss")
def the_hardest_negative_is_free(part):
    loss, labels = losses.RankedListLoss(margin=0.4, Tn=1), torch.tensor([0, 1])
    x = torch.eye(DIM)[[0, 0]]
    assert loss(x, labels) == 0
    assert loss(x + 1e-3 * torch.eye(2, DIM).roll(1, 1), labels) > 0.5


@defect("similarity is read as a distance", "ranked_list_loss")
def ranked_lists_push_similar_positives_apart(part):
    loss = losses.RankedListLoss(margin=0.4, Tn=1, distance=distances.CosineSimilarity())
    axis, labels = torch.eye(DIM)[0], torch.tensor([0, 0])
    assert loss(torch.stack([axis, -axis]), labels) == 0
    assert loss(torch.stack([axis, axis]), labels) > 0.05


# --- wrappers ---------------------------------------------------------------------------------------------------


@defect("from outside", "cross_batch_memory")
def a_choice_in_the_batch_is_looked_up_in_the_memory(part):
    loss = losses.CrossBatchMemory(losses.ContrastiveLoss(reducer=reducers.DoNothingReducer()), DIM, memory_size=64)
    loss(noise(), LABELS)
    chosen = pairs((0, 1, 0, 3))
    labels = LABELS + 10
    anchors, positives = loss(noise(1), labels, chosen)["pos_loss"]["indices"]
    assert labels[anchors[-1]] != loss.label_memory[positives[-1]]


@defect("eval mode", "cross_batch_memory")
def the_queue_takes_what_is_evaluated(part):
    loss = losses.CrossBatchMemory(losses.ContrastiveLoss(), DIM, memory_size=64).eval()
    with torch.no_grad():
        loss(noise(), LABELS)
    assert torch.equal(loss.embedding_memory[: len(LABELS)], noise())


@defect("resumed run", "cross_batch_memory")
def the_queue_forgets_its_position(part):
    saved, loaded = (losses.CrossBatchMemory(losses.ContrastiveLoss(), DIM, memory_size=64) for _ in range(2))
    saved(noise(), LABELS)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.embedding_memory, saved.embedding_memory)
    assert (saved.queue_idx, loaded.queue_idx) == (len(LABELS), 0)


# --- miners, reducers, distances --------------------------------------------------------------------------------


@defect("'semi-hard'", "triplet_margin_miner")
def a_misspelt_kind_of_triplets_is_all(part):
    found = {
        kind: len(miners.TripletMarginMiner(type_of_triplets=kind)(noise(), LABELS)[0])
        for kind in ("semi-hard", "semihard", "all")
    }
    assert found["semi-hard"] == found["all"] > found["semihard"]


@defect("not saved with state_dict", "class_weighted_reducer")
def class_weights_are_not_saved(part):
    assert not reducers.ClassWeightedReducer(torch.ones(CLASSES)).state_dict()


@defect("no divisor", "divisor_reducer")
def others_supply_no_divisor(part):
    reducer = reducers.DivisorReducer()
    assert losses.MarginLoss(reducer=reducer)(noise(), LABELS) > 0
    assert losses.ProxyAnchorLoss(CLASSES, DIM, reducer=reducer)(noise(), LABELS) > 0
    with pytest.raises(KeyError, match="divisor"):
        losses.TripletMarginLoss(reducer=reducer)(noise(), LABELS)


@defect("larger than the batch", "per_anchor_reducer")
def anchors_meet_a_larger_reference(part):
    loss = losses.ContrastiveLoss(reducer=reducers.PerAnchorReducer())
    with pytest.raises(IndexError):
        loss(noise(), LABELS, None, noise(1).repeat(2, 1), LABELS.repeat(2))


@defect("precision of the embeddings", "multiple_reducers")
def sub_losses_are_rounded(part):
    term = {"losses": torch.tensor([1.0001]), "indices": torch.tensor([0]), "reduction_type": "element"}
    reducer = reducers.MultipleReducers({"loss": reducers.SumReducer()})
    assert reducer({"loss": term}, noise(), LABELS) > 1
    assert reducer({"loss": term}, noise().half(), LABELS) == 1


@defect("bfloat16", "lp_distance")
def distances_lack_bfloat16(part):
    with pytest.raises(NotImplementedError, match="BFloat16"):
        distances.LpDistance()(noise().bfloat16())


@defect("more than 25 rows", "lp_distance")
def equal_rows_are_apart(part):
    rows = F.normalize(torch.randn(30, 64, generator=torch.Generator().manual_seed(0)))
    assert distances.LpDistance()(rows[:25]).diagonal().max() == 0
    assert distances.LpDistance()(rows).diagonal().max() > 1e-4


@defect("p=1", "cosine_similarity")
def no_cosine(part):
    assert distances.CosineSimilarity(p=1)(noise()).diagonal().max() < 0.9


@defect("returns None", "batched_distance")
def batches_return_nothing(part):
    with pytest.raises(TypeError):
        distances.BatchedDistance(distances.LpDistance())(noise())
    blocks = []
    distance = distances.BatchedDistance(distances.LpDistance(), iter_fn=lambda *block: blocks.append(block))
    assert distance(noise()) is None
    assert blocks


# ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "words", "check"), CHECKS)
def test_the_defect_is_still_there(part, words, check):
    assert len([defect for defect in SPECS[part].defects if words in str(defect)]) == 1
    check(part)


@pytest.mark.parametrize("part", [spec.name for spec in SPECS.values() if spec.defects])
def test_every_defect_has_its_check(part):
    checked = [words for name, words, _ in (param.values for param in CHECKS) if name == part]
    assert [defect for defect in SPECS[part].defects if not any(words in str(defect) for words in checked)] == []


@pytest.mark.parametrize(
    ("recipe", "part", "words", "told"),
    [
        ("pml.triplet_margin_loss", "triplet_margin_loss", "swap=True", False),
        ("pml.triplet_margin_loss(swap=False)", "triplet_margin_loss", "swap=True", False),
        ("pml.triplet_margin_loss(swap=True)", "triplet_margin_loss", "swap=True", True),
        ("triplet(miner=pml.triplet_margin_miner)", "triplet_margin_miner", "means 'all'", False),
        ("triplet(miner=pml.TripletMarginMiner(0.1, 'semihard'))", "triplet_margin_miner", "means 'all'", False),
        ("triplet(miner=pml.triplet_margin_miner(0.1, 'semi-hard'))", "triplet_margin_miner", "means 'all'", True),
        ("pml.angular_loss(reducer=mean)", "angular_loss", "are a column", False),
        ("pml.angular_loss(reducer=pml.PerAnchorReducer)", "angular_loss", "are a column", True),
        ("pml.circle_loss(distance=pml.cosine_similarity)", "cosine_similarity", "no cosines", False),
        ("pml.circle_loss(distance=pml.cosine_similarity(p=1))", "cosine_similarity", "no cosines", True),
        ("pml.smooth_ap_loss", "smooth_ap_loss", "embedding_regularizer", False),
    ],
)
def test_a_defect_of_an_argument_is_told_where_the_argument_is_one_that_it_shows_with(recipe, part, words, told):
    said = [str(problem) for problem in Recipe.of(recipe).check() if f"pml.{part}: " in str(problem)]
    assert any(words in sentence for sentence in said) == told


def test_a_defect_of_an_argument_is_of_one_that_there_is():
    for spec in SPECS.values():
        for defect in spec.defects:
            if not isinstance(defect, str):
                assert defect.argument in {*SLOTS, *(p.name for p in read_target(spec.target).parameters)}, spec.name
