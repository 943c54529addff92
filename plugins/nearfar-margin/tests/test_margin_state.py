"""What the adaptive losses keep: when it changes, what it is, and that nothing spoils it."""

from __future__ import annotations

import copy
import math
import statistics

import pytest
import torch

import nearfar
from nearfar.errors import RecipeError
from nearfar.nn.steps import follow
from nearfar_margin.adacos import AdaCos
from nearfar_margin.adaface import AdaFace
from nearfar_margin.curricularface import CurricularFace
from nearfar_margin.declaration import Rows
from nearfar_margin.elasticface import ElasticFace
from nearfar_margin.kappaface import KappaFace
from nearfar_margin.l_softmax import LSoftmax
from nearfar_margin.noise import counted_normal
from nearfar_margin.sphereface import SphereFace

C, D = 6, 4
LOSSES = {
    "l_softmax": lambda: LSoftmax(C, D, lambda_gamma=0.1),
    "sphereface": lambda: SphereFace(C, D),
    "adacos": lambda: AdaCos(C, D),
    "curricularface": lambda: CurricularFace(C, D, momentum=0.3),
    "adaface": lambda: AdaFace(C, D, momentum=0.3),
    "elasticface": lambda: ElasticFace(C, D, deviation=0.3),
    "kappaface": lambda: KappaFace(C, D, renewal=2),
}
each = pytest.mark.parametrize("name", LOSSES)


def made(name):
    torch.manual_seed(1)
    loss = LOSSES[name]()
    with torch.no_grad():
        loss.weight.normal_()
    return loss


def batch(seed, n=8):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g), torch.randint(C, (n,), generator=g)


def state(loss):
    return {name: value.clone() for name, value in loss.named_buffers()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@each
def test_a_call_in_training_mode_changes_it_and_one_in_evaluation_mode_does_not(name):
    loss = made(name)
    before = state(loss)
    loss(*batch(0))
    after = state(loss)
    assert before
    assert not same(before, after)
    loss.eval()
    first = loss(*batch(1))
    assert torch.equal(loss(*batch(1)), first)
    assert same(after, state(loss))


@each
def test_it_goes_on_from_a_state_dict(name):
    """From the middle of an interval of KappaFace too."""
    one, other = made(name), LOSSES[name]()
    for seed in range(3):
        one(*batch(seed))
    other.load_state_dict(one.state_dict())
    for seed in range(3, 6):
        assert torch.equal(one(*batch(seed)), other(*batch(seed)))
    assert same(state(one), state(other))


@each
def test_a_later_call_does_not_change_the_gradient_of_an_earlier_one(name):
    """As where the gradients of several calls are added up, or two losses share one."""
    one, other = made(name), made(name)
    x, y = batch(0)
    one(x, y).backward()
    value = other(x, y)
    other(*batch(1))
    value.backward()
    assert torch.equal(one.weight.grad, other.weight.grad)


@each
def test_an_empty_batch_leaves_the_statistics(name):
    loss = made(name)
    loss(*batch(0))
    before = state(loss)
    loss(torch.zeros(0, D), torch.zeros(0, dtype=torch.long))
    counters = {"step", "calls", "annealing.steps"}
    # The second call of KappaFace renews its margins, of what was there before it.
    if name != "kappaface":
        assert same({k: v for k, v in before.items() if k not in counters}, state(loss))
    assert loss(*batch(1)).isfinite()


@each
def test_one_sample_and_one_place_are_finite(name):
    loss = made(name)
    x, y = batch(0)
    for _ in range(4):
        for given in ((x[:1], y[:1]), (x[:1].expand(8, -1), y), (torch.zeros(8, D), y), (-loss.weight[y], y)):
            assert loss(*given).isfinite()
    assert all(value.isfinite().all() for value in loss.buffers())


@each
def test_half_precision_embeddings_leave_it_in_float32(name):
    loss = made(name)
    x, y = batch(0)
    loss(x.bfloat16(), y)
    assert all(value.dtype in (torch.float32, torch.int64) for value in loss.buffers())
    exact = made(name)
    exact(x.bfloat16().float(), y)
    assert same(state(loss), state(exact))


# ---- annealing


def test_lambda_falls_with_the_calls_and_stops():
    loss = SphereFace(C, D, lambda_base=10.0, lambda_gamma=1.0, lambda_power=2.0, lambda_min=0.5)
    rows = Rows(*torch.ones(2, 3), torch.zeros(3, dtype=torch.long))
    found = [loss.prepare(rows).plain[0].item() for _ in range(6)]
    assert found == pytest.approx([10 / 4, 10 / 9, 10 / 16, 0.5, 0.5, 0.5])
    assert loss.annealing.steps == 6


@pytest.mark.parametrize("name", ["l_softmax", "sphereface"])
def test_lambda_of_accumulated_calls_is_that_of_the_step_under_way(name):
    """Two calls on halves of a batch, then a step, are one call on the whole of it, to the last digit of λ."""
    halves, whole = made(name).double(), made(name).double()
    optimizers = [torch.optim.SGD(loss.parameters(), lr=0.1) for loss in (halves, whole)]
    follow(halves, optimizers[0])
    for seed in range(3):
        x, y = batch(seed)
        for half in (slice(None, 4), slice(4, None)):
            (halves(x[half].double(), y[half]) / 2).backward()
        whole(x.double(), y).backward()
        torch.testing.assert_close(halves.weight.grad, whole.weight.grad, rtol=1e-12, atol=1e-12)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert halves.annealing.steps == whole.annealing.steps == seed + 1
    halves.eval(), whole.eval()
    torch.testing.assert_close(halves(x.double(), y), whole(x.double(), y))


def test_a_call_that_no_step_follows_moves_no_lambda():
    loss = made("sphereface")
    follow(loss, torch.optim.SGD(loss.parameters(), lr=0.1))
    first = loss(*batch(0))
    assert torch.equal(loss(*batch(0)), first)
    assert loss.annealing.steps == 0


# ---- the scale of AdaCos


def test_adacos_starts_at_the_papers_scale():
    assert AdaCos(10_575, D).scale.item() == pytest.approx(math.sqrt(2) * math.log(10_574), rel=1e-6)


def test_fixed_adacos_keeps_its_scale():
    loss = AdaCos(C, D, fixed=True)
    before = loss.scale.clone()
    loss(*batch(0))
    assert torch.equal(loss.scale, before)


def test_adacos_asks_for_a_larger_scale_while_samples_are_far_from_their_classes():
    """At a median angle of π/4 and beyond the paper's bound is 1/cos(π/4) of what it is on the class."""
    scales = []
    w = torch.eye(4, 8, dtype=torch.float64)
    side = torch.eye(8, dtype=torch.float64)[4:]
    for theta in (0.0, math.pi / 4, math.pi / 2):
        loss = AdaCos(4, 8).double()
        with torch.no_grad():
            loss.weight.copy_(w)
        loss(math.cos(theta) * w + math.sin(theta) * side, torch.arange(4))
        scales.append(loss.scale.item())
    # All other cosines are 0, so that B = C − 1.
    assert scales == pytest.approx([math.log(3), math.sqrt(2) * math.log(3), math.sqrt(2) * math.log(3)], rel=1e-6)


# ---- the margins of ElasticFace


def splitmix(seed, step, place):
    """splitmix64's output function on whole numbers of Python, applied as the module says."""

    def mixed(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    return mixed(mixed(mixed(step) ^ seed) + place) >> 40


def test_counted_numbers_are_those_of_splitmix64():
    for seed, step in ((0, 0), (7, 3), (2**62 + 1, 10**6)):
        found = counted_normal(seed, torch.tensor(step), 5)
        expected = []
        for i in range(5):
            one, two = splitmix(seed, step, 2 * i), splitmix(seed, step, 2 * i + 1)
            radius = math.sqrt(-2 * math.log((one + 0.5) / 2**24))
            expected.append(radius * math.cos(2 * math.pi * two / 2**24))
        assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_counted_numbers_are_normal_and_do_not_repeat():
    found = torch.stack([counted_normal(0, torch.tensor(step), 2000) for step in range(20)])
    assert found.mean().item() == pytest.approx(0, abs=0.02)
    assert found.std().item() == pytest.approx(1, abs=0.02)
    for bound, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert (found.abs() < bound).double().mean().item() == pytest.approx(share, abs=0.01)
    # Neither from step to step nor from place to place.
    assert torch.corrcoef(found).triu(1).abs().max() < 0.1
    assert torch.corrcoef(torch.stack([found[:, 1:].flatten(), found[:, :-1].flatten()]))[0, 1].abs() < 0.03
    assert len(found.unique()) > 0.99 * found.numel()
    assert not torch.equal(counted_normal(0, torch.tensor(1), 5), counted_normal(1, torch.tensor(1), 5))


def margins(loss, t):
    rows = Rows(t, torch.ones_like(t), torch.zeros(len(t), dtype=torch.long))
    return loss.prepare(rows).margin


def test_elastic_margins_have_the_mean_and_the_deviation_asked_for():
    loss = ElasticFace(C, D, margin=0.5, deviation=0.05)
    found = margins(loss, torch.zeros(20_000))
    assert found.mean().item() == pytest.approx(0.5, abs=2e-3)
    assert found.std().item() == pytest.approx(0.05, rel=0.03)
    assert not torch.equal(margins(loss, torch.zeros(20_000)), found)
    assert (margins(loss.eval(), torch.zeros(9)) == 0.5).all()


def test_plus_gives_the_nearest_sample_the_smallest_margin():
    t = torch.randn(50, generator=torch.Generator().manual_seed(0)).tanh()
    found = margins(ElasticFace(C, D, plus=True), t)
    assert (found[t.argsort(descending=True)].diff() >= 0).all()
    plain = margins(ElasticFace(C, D), t)
    assert torch.equal(found.sort().values, plain.sort().values)


@pytest.mark.parametrize(
    ("form", "psi"), [("arc", lambda t, m: math.cos(math.acos(t) + m)), ("cos", lambda t, m: t - m)]
)
def test_an_elastic_margin_is_on_the_angle_or_on_the_cosine(form, psi):
    loss = ElasticFace(C, D, form=form, deviation=0.3)
    t = torch.linspace(-0.95, 0.95, 9, dtype=torch.float64)
    rows = loss.prepare(Rows(t, t, torch.zeros(9, dtype=torch.long)))
    expected = [psi(v, m) for v, m in zip(t.tolist(), rows.margin.tolist(), strict=True)]
    assert loss.target(t, rows).tolist() == pytest.approx(expected, rel=1e-12)


# ---- the margins of KappaFace


def kappaface_alpha(batches, old, temperature=0.55, share=0.7):
    """The factors of the margins after these batches, by the paper's formula; ``old`` of classes without samples."""
    of = {c: [] for c in range(C)}
    for x, y in batches:
        for v, j in zip(x.tolist(), y.tolist(), strict=True):
            of[j].append([p / math.hypot(*v) for p in v])
    kappa = {}
    for c, members in of.items():
        if members:
            r = math.hypot(*(math.fsum(column) / len(members) for column in zip(*members, strict=True)))
            kappa[c] = r * (D - r * r) / (1 - r * r) if r < 1 - 1e-9 else math.inf
    top = max(v for v in kappa.values() if v < math.inf)
    kappa = {c: min(v, top) for c, v in kappa.items()}
    mean, std = statistics.fmean(kappa.values()), statistics.stdev(kappa.values())
    most = max(len(members) for members in of.values())
    found = list(old)
    for c, v in kappa.items():
        concentrated = 1 - 1 / (1 + math.exp(-temperature * (v - mean) / std))
        rare = (math.cos(math.pi * len(of[c]) / (1.05 * most)) + 1) / 2
        found[c] = share * concentrated + (1 - share) * rare
    return found


def test_kappaface_renews_its_margins_by_the_papers_formula():
    loss = KappaFace(C, D, renewal=3).double()
    alpha = [1.0] * C
    for start in (0, 3):
        # Class 5 is in the first three batches only, and class 4 has one sample there.
        batches = []
        for seed in range(start, start + 3):
            x, y = batch(seed, n=12)
            y = (
                y.clamp_max(3)
                if start or seed
                else y.clamp_max(3).index_fill(0, torch.tensor([0, 1]), 5).index_fill(0, torch.tensor([2]), 4)
            )
            batches.append((x.double(), y))
        for number, given in enumerate(batches):
            assert loss.alpha.tolist() == pytest.approx(alpha, rel=1e-9), number
            loss(*given)
        alpha = kappaface_alpha(batches, alpha)
        assert loss.alpha.tolist() == pytest.approx(alpha, rel=1e-9)
    assert (loss.sums == 0).all()
    assert (loss.counts == 0).all()


def test_kappaface_gives_a_scattered_class_and_a_rare_one_the_larger_margin():
    """At γ = 1 concentration alone counts, at γ = 0 the number alone."""
    g = torch.Generator().manual_seed(0)
    centre = torch.tensor([1.0, 0, 0, 0])
    tight, loose = (centre + spread * torch.randn(20, D, generator=g) for spread in (0.1, 1.0))
    y = torch.tensor([0] * 20 + [1] * 5 + [2] * 20)
    x = torch.cat([tight, tight[:5], loose])
    by = {}
    for balance in (0.0, 1.0):
        loss = KappaFace(3, D, renewal=1, balance=balance)
        loss(x, y)
        by[balance] = loss.alpha
    assert by[1.0][2] > by[1.0][0]
    assert by[0.0][1] > by[0.0][0]
    torch.testing.assert_close(by[0.0][0], by[0.0][2])


def test_kappaface_applies_the_margin_of_the_class():
    loss = KappaFace(2, D, renewal=9, margin=0.6).double()
    loss.alpha.copy_(torch.tensor([0.25, 1.0]))
    t, x = torch.tensor([0.3, 0.3]), torch.eye(2, D)
    rows = loss.prepare(Rows(t, torch.ones(2), torch.tensor([0, 1]), embeddings=x))
    theta = math.acos(0.3)
    assert loss.target(rows.t.double(), rows).tolist() == pytest.approx(
        [math.cos(theta + 0.15), math.cos(theta + 0.6)], rel=1e-6
    )


def test_a_copy_counts_for_itself():
    loss = made("kappaface")
    loss(*batch(0))
    other = copy.deepcopy(loss)
    other(*batch(1))
    assert (other.alpha != 1).any()
    assert (loss.alpha == 1).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["adaface", "curricularface", "kappaface"])
def test_a_batch_that_overflowed_leaves_nothing_behind(name, bad):
    torch.manual_seed(0)
    batches = [(torch.randn(12, D), torch.arange(12) % C) for _ in range(3)]
    clean, hit = made(name), made(name)
    for x, y in batches:
        spoiled = torch.cat([x, torch.full((1, D), bad)]), torch.cat([y, y[:1]])
        clean(x, y)
        if name == "kappaface":  # which leaves the row out, and takes the others in
            assert not hit(*spoiled).isfinite()
        else:
            hit(*spoiled)
            hit(x, y)
    for key, kept in clean.named_buffers():
        torch.testing.assert_close(dict(hit.named_buffers())[key], kept)


def test_kappaface_on_the_meta_device_takes_a_state():
    saved = made("kappaface")
    saved(torch.randn(4, D), torch.arange(4))
    with torch.device("meta"):
        loss = KappaFace(C, D, renewal=2)
    loss.load_state_dict(saved.state_dict(), assign=True)
    loss(torch.randn(4, D), torch.arange(4))
    assert int(loss.calls) == 2
    assert not loss.counts.any()  # the margins are renewed with the second call
    with torch.device("meta"):
        empty = KappaFace(C, D, renewal=2)
    empty.load_state_dict(KappaFace(C, D, renewal=2).to("meta").state_dict())


@pytest.mark.parametrize(("name", "end"), [("margin", 0.1), ("scale", 10.0), ("balance", 0.5), ("sharpness", 1.0)])
def test_numbers_of_sphereface2_move_and_its_bias_is_learned_from_where_it_began(name, end):
    start = {"margin": 0.4, "scale": 40.0, "balance": 0.7, "sharpness": 3.0}[name]
    moved = nearfar.compose(f"sphereface2({name}=linear({start}, {end}, steps=2))", num_classes=C, embedding_size=D)
    made = nearfar.compose(f"sphereface2({name}={end})", num_classes=C, embedding_size=D)
    x, labels = torch.randn(8, D, generator=torch.Generator().manual_seed(0)), torch.arange(8) % C
    before = moved.losses["sphereface2"].bias.detach().clone()
    assert before != made.losses["sphereface2"].bias
    with torch.no_grad():
        for parameter, own in zip(made.parameters(), moved.parameters(), strict=True):
            parameter.copy_(own)
    first, _, third = (moved(x, labels) for _ in range(3))
    assert moved.losses["sphereface2"].bias == before
    assert first != third == made(x, labels)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("l_softmax(margin=linear(1, 4, steps=9))", "margin cannot be .* whole number .* is λ, which"),
        (
            "sphereface(margin=linear(1, 4, steps=9))",
            "margin cannot be .* whole number .* is λ, which",
        ),
        ("sphereface(lambda_min=linear(5, 0, steps=9))", "lambda_min cannot be .* a number of a schedule already"),
        ("l_softmax(lambda_base=linear(5, 0, steps=9))", "lambda_base cannot be .* a number of a schedule already"),
        ("p2sgrad(margin=linear(0, 1, steps=9))", "no parameter 'margin'"),
    ],
)
def test_what_has_a_schedule_of_its_own_takes_no_other(recipe, told):
    with pytest.raises(RecipeError, match=told):
        nearfar.compose(recipe, num_classes=C, embedding_size=D)
