"""Parts against each other: pytorch-metric-learning's with ours, ours with theirs, over the whole cross product."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import reducers as pml_reducers

import nearfar
from nearfar.errors import InputError, RecipeError
from nearfar.nn import EmbeddingLoss, MaterialTerms
from nearfar.registry import default_registry
from nearfar.testing.subject import Subject

CLASSES, DIM = 4, 8
CONTEXT = {"num_classes": 6, "embedding_size": DIM}  # more classes than the batch has; examples have as many


def batch(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(24, DIM, generator=generator, dtype=torch.float64)
    # Overlapping clusters: some triplets are violated, some are not, and every miner finds something.
    labels = torch.arange(24) % CLASSES
    centres = torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64)
    return (embeddings + 1.5 * centres[labels]).requires_grad_(), labels


def first_party(kind: str, **wanted):
    return [
        entry
        for entry in default_registry().entries(kind)
        if entry.namespace not in ("pml", "local", "acme")
        and all(getattr(entry.spec, k) == v for k, v in wanted.items())
    ]


def names(entries):
    return [entry.full_name for entry in entries]


# Not those that need a reference set, which nobody here gives.
_REDUCIBLE = [e for e in first_party("loss") if e.spec.reducible and "ref_emb" not in e.spec.inputs]
REDUCIBLE = [entry.full_name for entry in _REDUCIBLE]
#: But for those around another that take its miner and leave the reducer to it.
OUR_LOSSES = [entry for entry in _REDUCIBLE if entry.spec.on_embeddings]
OUR_MINERS = [entry.full_name for entry in first_party("miner") if entry.spec.on_embeddings]
#: Those that pytorch-metric-learning has too; the others are beside what they compute, below.
OUR_REDUCERS = ["core.mean", "core.sum", "core.avg_non_zero"]

THEIR_MINERS = {
    "angular": pml_miners.AngularMiner,
    "batch_easy_hard": pml_miners.BatchEasyHardMiner,
    "batch_hard": pml_miners.BatchHardMiner,
    "distance_weighted": pml_miners.DistanceWeightedMiner,
    "hdc": pml_miners.HDCMiner,
    "multi_similarity": pml_miners.MultiSimilarityMiner,
    "pair_margin": pml_miners.PairMarginMiner,
    "triplet_all": lambda: pml_miners.TripletMarginMiner(type_of_triplets="all"),
    "triplet_semihard": lambda: pml_miners.TripletMarginMiner(type_of_triplets="semihard"),
    "uniform_histogram": pml_miners.UniformHistogramMiner,
}

THEIR_DISTANCES = {
    "lp": pml_distances.LpDistance,
    "lp_squared": lambda: pml_distances.LpDistance(power=2),
    "cosine": pml_distances.CosineSimilarity,
    "dot": pml_distances.DotProductSimilarity,
    "snr": pml_distances.SNRDistance,
}


def compose(*args, **kwargs):
    """Compose without the warnings a recipe may deserve: here everything is tried with everything."""
    torch.manual_seed(0)  # class weights and proxies are drawn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nearfar.compose(*args, **kwargs)


def check(value, embeddings) -> torch.Tensor:
    """A loss is a finite number with a finite gradient."""
    assert value.ndim == 0
    assert value.isfinite()
    embeddings.grad = None
    value.backward(retain_graph=True)
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    return embeddings.grad


# ---- their miners × our losses


@pytest.mark.parametrize("miner", THEIR_MINERS)
@pytest.mark.parametrize("loss", [e.full_name for e in OUR_LOSSES if e.spec.accepts])
def test_their_miners_feed_our_losses(loss, miner):
    embeddings, labels = batch()
    made = THEIR_MINERS[miner]()
    criterion = compose(recipe_of(loss), miner=made, **CONTEXT).eval()  # in training some losses move their centres
    torch.manual_seed(1)
    value = criterion(embeddings, labels)
    check(value, embeddings)
    # The same by hand: what the miner returns goes to the loss as it is.
    torch.manual_seed(1)
    by_hand = criterion.losses[loss.split(".")[1]](embeddings, labels, made(embeddings, labels))
    torch.testing.assert_close(value, by_hand)


@pytest.mark.parametrize("loss", [e.full_name for e in OUR_LOSSES if e.spec.accepts])
def test_what_a_miner_leaves_out_does_not_count(loss):
    embeddings, labels = batch()
    criterion = compose(recipe_of(loss), **CONTEXT)
    everything = check(criterion(embeddings, labels), embeddings).clone()
    a, p, n = torch.tensor([0]), torch.tensor([4]), torch.tensor([1])
    some = check(criterion(embeddings, labels, (a, p, n)), embeddings).clone()
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[[0, 4, 1]] = True
    assert (some[~chosen] == 0).all()
    assert not torch.allclose(some, everything)


# ---- our miners × their losses


def made_of(miner: str) -> str:
    """A miner with a margin of its own, where it otherwise takes the loss's."""
    example = default_registry().resolve("miner", miner).spec.example
    return f"{miner}({example})" if example else miner


def their_losses():
    for entry in default_registry().find("loss", plugin="pml"):
        if {"pairs", "triplets"} & set(entry.spec.accepts) and not {"loss", "losses"} & set(_parameters(entry)):
            yield entry


def _parameters(entry):
    module, _, name = entry.spec.target.partition(":")
    return inspect.signature(getattr(__import__(module, fromlist=[name]), name)).parameters


EXAMPLES = {
    "pml.manifold_loss": {"l": DIM},
    "pml.ranked_list_loss": {"margin": 0.5, "Tn": 1.0},
    "pml.p2s_grad_loss": {"descriptors_dim": DIM},
}


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # their HistogramLoss
@pytest.mark.parametrize("miner", OUR_MINERS)
@pytest.mark.parametrize("loss", [entry.full_name for entry in their_losses()])
def test_our_miners_feed_their_losses(loss, miner):
    embeddings, labels = batch()
    part = made_of(miner)
    criterion = compose(loss, miner=part, **CONTEXT)
    value = criterion(embeddings, labels)
    check(value, embeddings)
    (term,) = criterion.losses
    indices = nearfar.create_miner(part)
    # On its own a miner measures as we do by default; here it measures as the loss does.
    indices.distance = criterion.losses[term].distance
    by_hand = criterion.losses[term](embeddings, labels, indices(embeddings, labels))
    torch.testing.assert_close(value, by_hand)


@pytest.mark.parametrize("miner", OUR_MINERS)
def test_our_miners_return_the_tuples_everybody_expects(miner):
    embeddings, labels = batch()
    part = made_of(miner)
    indices = nearfar.create_miner(part)(embeddings, labels)
    assert isinstance(indices, tuple)
    assert len(indices) == {"triplets": 3, "pairs": 4}[default_registry().resolve("miner", miner).spec.produces]
    assert all(t.dtype == torch.int64 and t.ndim == 1 for t in indices)
    a, p, n = indices[0], indices[1], indices[-1]
    assert (labels[a] == labels[p]).all()
    assert (a != p).all()
    assert (labels[indices[-2] if len(indices) == 4 else a] != labels[n]).all()


# ---- reducers


THEIR_REDUCERS = {
    "mean": (pml_reducers.MeanReducer, lambda v: v.mean()),
    "sum": (pml_reducers.SumReducer, lambda v: v.sum()),
    "avg_non_zero": (pml_reducers.AvgNonZeroReducer, lambda v: v[v > 0].mean() if (v > 0).any() else 0 * v.sum()),
    "threshold": (
        lambda: pml_reducers.ThresholdReducer(low=0.1),
        lambda v: v[v > 0.1].mean() if (v > 0.1).any() else 0 * v.sum(),
    ),
}


def unreduced(loss, inputs) -> list[torch.Tensor]:
    value = compose(recipe_of(loss), reducer="core.none", **CONTEXT)
    values = value(*inputs)
    return list(values.values()) if isinstance(values, dict) else [values]


def recipe_of(loss: str) -> str:
    """The loss with what it needs that the context does not have, an inner loss or the size of an image."""
    entry = default_registry().resolve("loss", loss)
    if not entry.spec.on_embeddings:
        return str(Subject(entry, default_registry()).part())
    return f"{loss}({entry.spec.example})" if entry.spec.example else loss


def inputs_of(loss: str):
    entry = default_registry().resolve("loss", loss)
    if entry.spec.on_embeddings:
        return batch()
    first, *rest = Subject(entry, default_registry()).scene(classes=2, per_class=3).inputs.values()
    return first.requires_grad_(), *rest


@pytest.mark.parametrize("reducer", THEIR_REDUCERS)
@pytest.mark.parametrize("loss", REDUCIBLE)
def test_their_reducers_reduce_our_losses(loss, reducer):
    make, definition = THEIR_REDUCERS[reducer]
    inputs = inputs_of(loss)
    value = compose(recipe_of(loss), reducer=make(), **CONTEXT)(*inputs)
    check(value, inputs[0])
    torch.testing.assert_close(value, sum(definition(v) for v in unreduced(loss, inputs)))


#: Losses whose mean, as their formula has it, divides by something else than the number of their values.
NORMALIZED = ("pair.margin_beta", "pair.siglip")


@pytest.mark.parametrize("reducer", OUR_REDUCERS)
@pytest.mark.parametrize("loss", REDUCIBLE)
def test_our_reducers_reduce_our_losses_as_they_do_the_values(loss, reducer):
    if loss in NORMALIZED and reducer == "core.mean":
        pytest.skip("its mean is that of its formula, over a normaliser of its own")
    inputs = inputs_of(loss)
    definition = THEIR_REDUCERS[reducer.split(".")[1]][1]
    value = compose(recipe_of(loss), reducer=reducer, **CONTEXT)(*inputs)
    gradient = check(value, inputs[0]).clone()
    expected = sum(definition(v) for v in unreduced(loss, inputs))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, check(expected, inputs[0]))


class Keeping(pml_reducers.BaseReducer):
    """Keeps every sub-loss as it was handed over, and the labels of its elements."""

    def forward(self, loss_dict, embeddings, labels):
        self.kept = getattr(self, "kept", {}) | {name: (entry, labels) for name, entry in loss_dict.items()}
        return (embeddings * 0).sum()


def mean_of_the_three_greatest(entry, labels):
    return entry["losses"].topk(min(3, len(entry["losses"]))).values.mean()


def mean_of_the_means_of_classes(entry, labels):
    own = labels[anchors_of(entry)]
    return torch.stack([entry["losses"][own == label].mean() for label in own.unique()]).mean()


def anchors_of(entry):
    return entry["indices"][0] if isinstance(entry["indices"], tuple) else entry["indices"]


def mean_of_the_means_of_anchors(entry, labels):
    anchors = anchors_of(entry)
    return torch.stack([entry["losses"][anchors == anchor].mean() for anchor in anchors.unique()]).mean()


def mean_between(entry, labels):
    kept = (entry["losses"] > 0.05) & (entry["losses"] < 3)
    return entry["losses"][kept].mean() if kept.any() else entry["losses"].sum() * 0


def sum_over_the_divisor(entry, labels):
    return entry["losses"].sum() / entry["divisor"]


def weighted_by_class(entry, labels):
    weights = torch.tensor(CLASS_WEIGHTS).to(entry["losses"])[labels[anchors_of(entry)]]
    return (weights * entry["losses"]).sum() / entry["divisor"]


CLASS_WEIGHTS = [1.0, 0.5, 2.0, 1.5, 0.25, 3.0]
OURS_ALONE = {
    "core.top_k(k=3)": mean_of_the_three_greatest,
    "core.per_group": mean_of_the_means_of_classes,
    "core.per_anchor": mean_of_the_means_of_anchors,
    "core.threshold(low=0.05, high=3)": mean_between,
    "core.divisor": sum_over_the_divisor,
    f"core.class_weighted(class_weights={CLASS_WEIGHTS})": weighted_by_class,
}
#: What is said where a reducer cannot do without labels.
WITHOUT_LABELS = {"core.per_group": "groups", "core.class_weighted": "labels"}


def test_every_reducer_of_ours_is_composed_with_every_loss():
    known = {*OUR_REDUCERS, "core.none", *(name.partition("(")[0] for name in OURS_ALONE)}
    assert known == set(names(first_party("reducer")))


@pytest.mark.parametrize("reducer", OURS_ALONE)
@pytest.mark.parametrize("loss", REDUCIBLE)
def test_reducers_of_ours_alone_reduce_our_losses_as_they_do_the_values(loss, reducer):
    inputs = inputs_of(loss)
    keeping = Keeping()
    compose(recipe_of(loss), reducer=keeping, **CONTEXT)(*inputs)
    name = reducer.partition("(")[0]
    if name in WITHOUT_LABELS and not loss_has_labels(loss):
        # At composition where nothing that a call may bring would do.
        with pytest.raises((RecipeError, InputError), match=WITHOUT_LABELS[name]):
            compose(recipe_of(loss), reducer=reducer, **CONTEXT)(*inputs)
        return
    criterion = compose(recipe_of(loss), reducer=reducer, **CONTEXT)
    expected = sum(OURS_ALONE[reducer](*entry) for entry in keeping.kept.values())
    value = criterion(*inputs)
    gradient = check(value, inputs[0]).clone()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, check(expected, inputs[0]))


def loss_has_labels(loss: str) -> bool:
    return "labels" in default_registry().resolve("loss", loss).spec.inputs


@pytest.mark.parametrize("loss", [e.full_name for e in OUR_LOSSES])
def test_their_reducers_that_return_or_take_dictionaries_do_so(loss):
    embeddings, labels = batch()
    returned = compose(recipe_of(loss), reducer=pml_reducers.DoNothingReducer(), **CONTEXT)(embeddings, labels)
    assert all({"losses", "indices", "reduction_type"} <= set(entry) for entry in returned.values())
    multiple = pml_reducers.MultipleReducers({name: pml_reducers.SumReducer() for name in returned})
    value = compose(recipe_of(loss), reducer=multiple, **CONTEXT)(embeddings, labels)
    torch.testing.assert_close(value, compose(recipe_of(loss), reducer="sum", **CONTEXT)(embeddings, labels))


@pytest.mark.parametrize("reducer", OUR_REDUCERS)
@pytest.mark.parametrize(
    "loss", ["ContrastiveLoss", "TripletMarginLoss", "NTXentLoss", "SupConLoss", "MultiSimilarityLoss", "MarginLoss"]
)
def test_our_reducers_reduce_their_losses_as_theirs_do(loss, reducer):
    embeddings, labels = batch()
    ours = getattr(pml_losses, loss)(reducer=nearfar.create_reducer(reducer))(embeddings, labels)
    theirs = getattr(pml_losses, loss)(reducer=THEIR_REDUCERS[reducer.split(".")[1]][0]())(embeddings, labels)
    check(ours, embeddings)
    torch.testing.assert_close(ours, theirs)


# ---- distances


@pytest.mark.parametrize("distance", THEIR_DISTANCES)
@pytest.mark.parametrize("loss", [e.full_name for e in OUR_LOSSES if "*" in e.spec.distances])
def test_their_distances_measure_in_our_losses(loss, distance):
    embeddings, labels = batch()
    check(compose(loss, distance=THEIR_DISTANCES[distance](), **CONTEXT)(embeddings, labels), embeddings)


TWINS = [("core.euclidean", "lp"), ("core.squared_euclidean", "lp_squared"), ("core.cosine", "cosine")]


@pytest.mark.parametrize(("ours", "theirs"), TWINS)
@pytest.mark.parametrize("loss", [e.full_name for e in OUR_LOSSES if "*" in e.spec.distances])
@pytest.mark.parametrize("miner", [None, "pair.hard"])
def test_a_distance_of_theirs_gives_what_its_twin_of_ours_gives(loss, ours, theirs, miner):
    if miner and not default_registry().resolve("loss", loss).spec.accepts:
        pytest.skip("takes no miner")
    embeddings, labels = batch()
    first = compose(loss, distance=ours, miner=miner, **CONTEXT)(embeddings, labels)
    second = compose(loss, distance=THEIR_DISTANCES[theirs](), miner=miner, **CONTEXT)(embeddings, labels)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(check(first, embeddings).clone(), check(second, embeddings))


@pytest.mark.parametrize(("ours", "theirs"), TWINS)
@pytest.mark.parametrize(
    "loss", ["ContrastiveLoss", "TripletMarginLoss", "NTXentLoss", "MultiSimilarityLoss", "MarginLoss"]
)
def test_our_distances_measure_in_their_losses_as_theirs_do(loss, ours, theirs):
    embeddings, labels = batch()
    made = getattr(pml_losses, loss)
    value = made(distance=nearfar.create_distance(ours))(embeddings, labels)
    check(value, embeddings)
    torch.testing.assert_close(value, made(distance=THEIR_DISTANCES[theirs]())(embeddings, labels))


# ---- their containers


@pytest.mark.parametrize("loss", [e.full_name for e in OUR_LOSSES])
def test_our_losses_and_miners_work_inside_their_multiple_losses(loss):
    embeddings, labels = batch()
    spec = default_registry().resolve("loss", loss).spec
    made = next(iter(compose(recipe_of(loss), **CONTEXT).losses.values())).eval()
    miner = nearfar.create_miner("pair.hard") if spec.accepts else None
    both = pml_losses.MultipleLosses([made, pml_losses.TripletMarginLoss()], miners=[miner, None], weights=[2.0, 0.5])
    value = both(embeddings, labels)
    check(value, embeddings)
    alone = made(embeddings, labels, miner(embeddings, labels) if miner else None)
    torch.testing.assert_close(value, 2 * alone + 0.5 * pml_losses.TripletMarginLoss()(embeddings, labels))


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")  # their trainer's log
def test_our_criterion_trains_inside_their_trainer():
    from pytorch_metric_learning import trainers

    torch.manual_seed(0)
    embeddings, labels = batch()
    dataset = torch.utils.data.TensorDataset(embeddings.detach().float(), labels)
    trunk, head = torch.nn.Linear(DIM, DIM), torch.nn.Identity()
    criterion = nearfar.compose("triplet(margin=0.5)")
    before = criterion(trunk(dataset.tensors[0]), labels).item()
    trainer = trainers.MetricLossOnly(
        models={"trunk": trunk, "embedder": head},
        optimizers={"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.5)},
        batch_size=24,
        loss_funcs={"metric_loss": criterion},
        mining_funcs={"tuple_miner": nearfar.create_miner("semihard(margin=0.5)")},
        dataset=dataset,
        data_device=torch.device("cpu"),
        dataloader_num_workers=0,
    )
    trainer.train(num_epochs=20)
    assert criterion(trunk(dataset.tensors[0]), labels).item() < before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", ["pml.arc_face_loss", "pml.triplet_margin_loss", "pml.multi_similarity_loss"])
def test_their_losses_are_computed_in_full_precision_and_keep_their_weights(loss, dtype):
    embeddings, labels = batch()
    criterion = compose(loss, **CONTEXT)
    weights = {name: p.clone() for name, p in criterion.named_parameters()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = criterion(embeddings.detach().to(dtype), labels)
    assert value.dtype == torch.float32
    for name, parameter in criterion.named_parameters():
        assert torch.equal(parameter, weights[name])


# ---- an author's part needs to know nothing of all this


class Spread(EmbeddingLoss):
    """The simplest loss an author may write: distances of positives, materialised."""

    def terms(self, batch):
        a, p, _, _ = batch.pairs()
        d = self.distance(batch.embeddings, batch.reference)
        return MaterialTerms("pos_pair", d[a, p], (a, p), num_anchors=len(batch.embeddings))


@pytest.mark.parametrize("reducer", [*OUR_REDUCERS, *THEIR_REDUCERS])
@pytest.mark.parametrize("miner", [None, *OUR_MINERS, *THEIR_MINERS])
def test_a_part_that_knows_nothing_of_closed_forms_composes_with_everything(miner, reducer):
    embeddings, labels = batch()
    made = THEIR_MINERS[miner]() if miner in THEIR_MINERS else miner and made_of(miner)
    nearfar.register("spread", Spread, accepts=("pairs", "triplets"), emits=("pos_pair",))
    try:
        criterion = compose(
            "spread", miner=made, reducer=THEIR_REDUCERS[reducer][0]() if reducer in THEIR_REDUCERS else reducer
        )
        check(criterion(embeddings, labels), embeddings)
    finally:
        nearfar.unregister("spread")
