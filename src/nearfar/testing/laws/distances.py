"""Laws of distances and similarities."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nearfar.testing.definition import definition_of
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_SEEDS = st.integers(0, 2**16)
_STEP = 1e-6
#: How far two float64 results may be apart: a root makes 1e-8 of what cancellation leaves of zero.
_TOLERANCE = 1e-7


# ---- the axioms


@law("distance", cases=("float64", "float32"))
def identity(subject: Subject, case: str) -> None:
    """What is equal is as near as the spec says that it is, by itself and among many rows."""
    nearest = subject.distance.nearest
    if not math.isfinite(nearest):
        raise NotApplicable("by its spec nothing bounds how near two embeddings are")
    tolerance = {"float64": 1e-6, "float32": 1e-5}[case]
    for rows in (3, 40):  # some ways of computing are chosen by the number of rows
        scene = _scene(subject, rows=rows, alone=True).to(_DTYPES[case])
        x = scene["query_emb"]
        twice = Scene({"query_emb": torch.cat([x, x])}, f"{scene.origin}  # twice, one after the other")
        matrix = _matrix(subject, twice)
        for what, found in {"itself": matrix.diagonal(), "a duplicate": matrix.diagonal(rows)}.items():
            off = (found - nearest).abs().max()
            if not off <= tolerance:
                raise LawBroken(
                    f"the distance of equal embeddings is {nearest:g} by the spec; of {2 * rows} rows one is "
                    f"{float(off):.3g} off with {what}, in {case}",
                    twice,
                )


@law("distance")
def symmetry(subject: Subject) -> None:
    """The distance of x to y is that of y to x; where the spec says that it is not, it is not."""

    def off(seed: int) -> float:
        scene = _scene(subject, seed=seed)
        back = _matrix(subject, Scene({"query_emb": scene["ref_emb"], "ref_emb": scene["query_emb"]}))
        return float((_matrix(subject, scene) - back.T).abs().max())

    if not subject.distance.symmetric:
        if max(map(off, range(5))) <= _TOLERANCE:
            raise LawBroken("the spec says that it is not symmetric, but it is; take symmetric=False away")
        return

    def holds(seed: int) -> None:
        if not off(seed) <= _TOLERANCE:
            raise LawBroken(
                f"d(x, y) and d(y, x) are up to {off(seed):.3g} apart; one that is not symmetric declares "
                "symmetric=False",
                _scene(subject, seed=seed),
            )

    for_all(subject, holds, examples=5, seed=_SEEDS)


@law("distance")
def within_range(subject: Subject) -> None:
    """Every value lies in the range that the spec names."""
    low, high = subject.distance.range

    def holds(seed: int, scale: float) -> None:
        scene = _scene(subject, seed=seed)
        opposite = -scene["query_emb"]  # as far away as can be
        scene = scene.replace(query_emb=scale * scene["query_emb"], ref_emb=torch.cat([scene["ref_emb"], opposite]))
        matrix = _matrix(subject, scene)
        if not (float(matrix.min()) >= low - 1e-9 and float(matrix.max()) <= high + 1e-9):
            raise LawBroken(
                f"values run from {float(matrix.min()):.6g} to {float(matrix.max()):.6g}; by the spec from {low:g} to "
                f"{high:g}",
                scene,
            )

    for_all(subject, holds, examples=6, seed=_SEEDS, scale=st.sampled_from([0.01, 1.0, 100.0]))


@law("distance")
def triangle_inequality(subject: Subject) -> None:
    """By way of a third embedding it is never shorter, where the spec calls it a metric."""
    if not subject.distance.metric:
        raise NotApplicable("its spec does not call it a metric")

    def holds(seed: int) -> None:
        scene = _scene(subject, seed=seed, alone=True)
        x = scene["query_emb"]
        scene = Scene({"query_emb": torch.cat([x, (x[:-1] + x[1:]) / 2])}, f"{scene.origin}  # and points between them")
        d = _matrix(subject, scene)
        worst = float((d[:, None, :] - d[:, :, None] - d[None, :, :]).max())  # d(a, c) − d(a, b) − d(b, c)
        if not worst <= _TOLERANCE:
            raise LawBroken(f"d(a, c) exceeds d(a, b) + d(b, c) by up to {worst:.3g}", scene)

    for_all(subject, holds, examples=5, seed=_SEEDS)


@law("distance")
def orientation(subject: Subject) -> None:
    """A similarity is greater, and has is_inverted set, where embeddings are nearer; any other distance is smaller."""
    similarity = subject.distance.similarity
    what = "a similarity" if similarity else "no similarity"
    if bool(subject.make().is_inverted) != similarity:
        raise LawBroken(f"by its spec it is {what}, but is_inverted is {not similarity}")
    scene = _scene(subject, alone=True)
    if subject.distance.on == "embeddings":
        unit = torch.nn.functional.normalize(scene["query_emb"])
        scene = Scene({"query_emb": unit}, f"{scene.origin}  # each scaled to length one")
    matrix = _matrix(subject, scene)
    own, other = (
        matrix.diagonal()[:, None],
        matrix + torch.where(torch.eye(len(matrix), dtype=torch.bool), torch.nan, 0),
    )
    if bool(((own <= other) if similarity else (own >= other)).any()):
        raise LawBroken(
            f"by its spec it is {what}, but of one to itself it is {float(own[0]):.4g} and to others "
            f"{', '.join(f'{value:.4g}' for value in matrix[0, 1:].tolist())}",
            scene,
        )


@law("distance")
def nearness(subject: Subject) -> None:
    """What it calls smallest is the nearest, what it calls largest the farthest, and its margin of x over y is how much
    farther x is."""
    part: Any = subject.make()
    values = torch.tensor([[0.3, 0.9, 0.5]], dtype=torch.float64)
    low, high = (1, 0) if part.is_inverted else (0, 1)
    found = {
        "smallest_dist": int(part.smallest_dist(values, dim=1).indices),
        "largest_dist": int(part.largest_dist(values, dim=1).indices),
    }
    for name, place in {"smallest_dist": low, "largest_dist": high}.items():
        if found[name] != place:
            raise LawBroken(f"of 0.3, 0.9 and 0.5 {name} takes the one at {found[name]}, not at {place}")
    margin = float(part.margin(values[0, high], values[0, low]))
    if not math.isclose(margin, 0.6, abs_tol=1e-9):
        raise LawBroken(f"of the farther of 0.3 and 0.9 over the nearer the margin is {margin:.4g}, not 0.6")


# ---- one matrix, however it is asked for


@law("distance", cases=variants)
def blocks(subject: Subject, case: str = "") -> None:
    """An entry of the matrix is of its two embeddings alone: a block is the block of the whole, and a batch has the
    distances to itself that it has to a copy."""
    arguments = variants(subject)[case]

    def holds(seed: int) -> None:
        scene = _scene(subject, seed=seed)
        x, y = scene["query_emb"], scene["ref_emb"]
        whole = _matrix(subject, scene, **arguments)
        if whole.shape != (len(x), len(y)):
            raise LawBroken(f"the matrix of {len(x)} to {len(y)} is {tuple(whole.shape)}", scene, **arguments)
        block = _matrix(subject, Scene({"query_emb": x[1:3], "ref_emb": y[2:]}), **arguments)
        _compare(block, whole[1:3, 2:], "a block of the matrix is not the matrix of the block", scene, arguments)
        itself, copy = Scene({"query_emb": x}, scene.origin), Scene({"query_emb": x, "ref_emb": x.clone()})
        message = "a batch has other distances to itself than to a copy of it"
        _compare(_matrix(subject, itself, **arguments), _matrix(subject, copy, **arguments), message, itself, arguments)

    for_all(subject, holds, examples=4, seed=_SEEDS)


@law("distance", cases=variants)
def pairwise(subject: Subject, case: str = "") -> None:
    """Row by row it is what the matrix has on its diagonal, once embeddings are scaled as the matrix scales them."""
    arguments = variants(subject)[case]

    def holds(seed: int) -> None:
        scene = _scene(subject, seed=seed)
        x, y = scene["query_emb"], scene["ref_emb"][: len(scene["query_emb"])]
        part: Any = subject.make(**arguments)
        found = part.pairwise_distance(part.maybe_normalize(x), part.maybe_normalize(y))
        matrix = _matrix(subject, Scene({"query_emb": x, "ref_emb": y}), **arguments)
        message = "row by row it is not the diagonal of the matrix"
        # torch.nn.functional.pairwise_distance adds 1e-6 to every difference.
        _compare(found, matrix.diagonal(), message, scene, arguments, tolerance=2e-5)

    for_all(subject, holds, examples=4, seed=_SEEDS)


@law("distance", cases=variants)
def measured_as_defined(subject: Subject, case: str = "") -> None:
    """Every entry of the matrix is that of its definition."""
    arguments = variants(subject)[case]
    define = definition_of(subject, arguments)

    def holds(seed: int) -> None:
        scene = _scene(subject, seed=seed)
        rows, columns = scene["query_emb"].tolist(), scene["ref_emb"].tolist()
        expected = torch.tensor([[define(x, y) for y in columns] for x in rows], dtype=torch.float64)
        _compare(_matrix(subject, scene, **arguments), expected, "it is not its definition", scene, arguments)

    for_all(subject, holds, examples=4, seed=_SEEDS)


@law("distance")
def length(subject: Subject) -> None:
    """A distance that says that it normalises is the same for embeddings of any length."""
    if not getattr(subject.make(), "normalize_embeddings", False):
        raise NotApplicable("it takes embeddings as they are")

    def holds(seed: int) -> None:
        scene = _scene(subject, seed=seed)
        scales = torch.linspace(0.1, 30, len(scene["query_emb"]), dtype=torch.float64)[:, None]
        scaled = scene.replace(query_emb=scales * scene["query_emb"], ref_emb=5 * scene["ref_emb"])
        message = "by normalize_embeddings it normalises, but for longer embeddings it is another"
        _compare(_matrix(subject, scaled), _matrix(subject, scene), message, scene, {})

    for_all(subject, holds, examples=4, seed=_SEEDS)


# ---- numbers


@law("distance", cases=("float32", "float16", "bfloat16", "autocast"))
def distance_precision(subject: Subject, case: str) -> None:
    """In lower precision it is that of float64 to within rounding."""
    dtype = torch.float32 if case == "autocast" else _DTYPES[case]
    scene = _scene(subject).to(dtype)
    expected = _matrix(subject, scene.to(torch.float64))
    with torch.autocast("cpu", enabled=case == "autocast"):
        found = _matrix(subject, scene, dtype)
    eps = torch.finfo(torch.bfloat16 if case == "autocast" else dtype).eps
    _compare(found.double(), expected, f"in {case} it is not that of float64", scene, {}, tolerance=8 * eps)


@law("distance", cases=variants)
def distance_gradient(subject: Subject, case: str = "") -> None:
    """The gradient is that of the value, by finite differences in float64, for two sets and for one with itself."""
    arguments = variants(subject)[case]

    def holds(alone: bool, seed: int) -> None:
        scene = _scene(subject, seed=seed, alone=alone)
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(_matrix(subject, scene, **arguments).shape, generator=generator, dtype=torch.float64)

        def value(at: Scene) -> Tensor:
            matrix = _matrix(subject, at, **arguments)
            # The distance of an embedding to itself has a kink, where any slope between two will do.
            return (weight * matrix).triu(1).sum() if alone else (weight * matrix).sum()

        leaves = scene.with_gradients()
        total = value(leaves)
        if not total.requires_grad:
            raise LawBroken("the matrix has no gradient", scene, **arguments)
        gradients = torch.autograd.grad(total, list(leaves.inputs.values()))
        for (name, x), gradient in zip(scene.inputs.items(), gradients, strict=True):
            direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            ahead, behind = (float(value(scene.replace(**{name: x + s * _STEP * direction}))) for s in (1, -1))
            expected, given = (ahead - behind) / (2 * _STEP), float((gradient * direction).sum())
            if not abs(given - expected) <= 1e-4 * max(abs(expected), float(gradient.abs().max()), 1e-3):
                raise LawBroken(
                    f"along a direction of {name} the gradient is {given:.8g}, and the value changes by {expected:.8g}",
                    scene,
                    **arguments,
                )

    for alone in (False, True):
        for_all(subject, partial(holds, alone), examples=2, seed=_SEEDS)


@law("distance", cases=("float64", "float32"))
def distance_degenerate(subject: Subject, case: str) -> None:
    """Of duplicates, opposites, zero vectors and no vectors at all it is finite, and so is its gradient."""
    x = _scene(subject, alone=True)["query_emb"]
    rows = {
        "duplicates": torch.cat([x, x]),
        "opposites": torch.cat([x, -x]),
        "zero vectors": torch.cat([x, torch.zeros_like(x[:2])]),
        "vectors along the axes": torch.eye(x.shape[1], dtype=torch.float64)[:4],
    }
    for what, values in rows.items():
        leaf = values.to(_DTYPES[case]).requires_grad_()
        for scene in (Scene({"query_emb": leaf}), Scene({"query_emb": leaf, "ref_emb": leaf.detach().clone()})):
            matrix = _matrix(subject, scene)
            (gradient,) = torch.autograd.grad(matrix.sum(), leaf)
            for part, found in {"value": matrix, "gradient": gradient}.items():
                if not bool(found.isfinite().all()):
                    worst = float(found[~found.isfinite()][0])
                    raise LawBroken(f"among {what} a {part} is {worst}", scene)
    empty = _matrix(subject, Scene({"query_emb": x[:0].to(_DTYPES[case]), "ref_emb": x.to(_DTYPES[case])}))
    if empty.shape != (0, len(x)):
        raise LawBroken(f"the matrix of no embeddings to {len(x)} is {tuple(empty.shape)}, not (0, {len(x)})")


# ---- shared


def _scene(subject: Subject, *, rows: int = 4, seed: int | None = None, alone: bool = False) -> Scene:
    """Two sets of embeddings of different sizes; the first one ``alone``."""
    seed = subject.seed if seed is None else seed
    sizes = {"query_emb": (rows, seed)} if alone else {"query_emb": (rows, seed), "ref_emb": (rows + 1, seed + 2**17)}
    made = {name: subject.rows(size, each) for name, (size, each) in sizes.items()}
    written = ", ".join(origin for _, origin in made.values())
    return Scene({name: values for name, (values, _) in made.items()}, f"({written},)")


def _matrix(subject: Subject, scene: Scene, dtype: torch.dtype = torch.float64, **arguments: Any) -> Tensor:
    found = subject.call(subject.make(dtype, **arguments), scene)
    if not isinstance(found, Tensor):
        raise LawBroken(f"a distance returns a matrix; got a {type(found).__name__}", scene, **arguments)
    return found


def _compare(
    found: Tensor,
    expected: Tensor,
    message: str,
    scene: Scene,
    arguments: dict[str, Any],
    tolerance: float = _TOLERANCE,
) -> None:
    off = (found - expected).abs() / expected.abs().clamp_min(1)
    if not bool((off <= tolerance).all()):
        place = int(torch.where(off.isnan(), torch.inf, off).argmax())
        values = (float(each.reshape(-1)[place]) for each in (found, expected))
        raise LawBroken("{}: {:.8g} instead of {:.8g}".format(message, *values), scene, **arguments)
