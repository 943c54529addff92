"""Kernels as text: the formulas of the compiled tier run on symbols."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

from nearfar_iou.compiled import combined, formulas, pair, scalars
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.fused.symbols import Mathematics, Program, Symbol, greater, less, select

__all__ = ["Variant", "written"]

#: The least normal number of float32 and of float64.
TINY = {False: 2.0**-126, True: 2.0**-1022}

HEAD = """\
def kernel(preds, targets, values, by_preds, by_targets, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < n
    zeros = tl.zeros((BLOCK,), tl.{real})
"""


class Variant(NamedTuple):
    """A kernel: a loss, how extents follow from coordinates, its type, and what gradients are wanted."""

    formula: Formula
    extents: tuple[float, float, float, float]
    double: bool
    for_pred: bool
    for_target: bool


@cache
def written(variant: Variant) -> str:
    """The text of a kernel of Triton's: (n, 4) predictions and targets in, (n,) losses and (n, 4) gradients out."""
    program = Program(double=variant.double)
    pred, target = (
        [program.symbol(f"tl.load({name} + 4 * i + {k}, mask=here, other=0.0)") for k in range(4)]
        for name in ("preds", "targets")
    )
    value, by_pred, by_target = _loss(program, variant, pred, target)
    results = {"values + i": value}
    for name, gradient in (("by_preds", by_pred), ("by_targets", by_target)):
        results |= {f"{name} + 4 * i + {k}": each for k, each in enumerate(gradient)}
    stores = [f"tl.store({place}, {each._full()}, mask=here)" for place, each in results.items()]
    head = HEAD.format(real="float64" if variant.double else "float32")
    return head + "".join(f"    {line}\n" for line in (*program.lines, *stores))


def _loss(
    program: Program, variant: Variant, pred: list[Symbol], target: list[Symbol]
) -> tuple[Symbol, tuple[Symbol, ...], tuple[Symbol, ...]]:
    """The loss of one pair, and its gradients where they are wanted: what the compiled tier's loop does to a box."""
    does, real, formula = _rewritten(), program.real, variant.formula
    matrix, numbers = tuple(map(real, variant.extents)), tuple(map(real, formula.numbers))
    one, tiny, outer = real(1), real(TINY[variant.double]), real(formula.number)
    p, t = (
        does["Box"](does["repaired"](box[0], box[2], matrix, real), does["repaired"](box[1], box[3], matrix, real))
        for box in (pred, target)
    )
    x, y = does["measure"](p.x, t.x, real), does["measure"](p.y, t.y, real)
    both = does["compare"](x, y, tiny)
    whole = formula.name in does["WHOLE"]
    measured = does["WHOLE" if whole else "PENALTIES"][formula.name](both, real, numbers)
    within = None
    if whole:
        value, slopes = measured
    elif formula.around == "alpha":
        value, slopes = does["alpha"](both, measured, outer, real)
    elif formula.around == "inner":
        within = does["inner"](p, t, outer, tiny, real)
        value, slopes = does["plain"](measured, within.miss, real(0), real)
    else:
        value, slopes = does["plain"](measured, both.miss, -one, real)
    if formula.around == "focal":
        importance = both.iou**outer
        value, slopes = value * importance, does["weighted"](slopes, importance)
    folds = [does["folds"](getattr(p, axis), getattr(t, axis), real) for axis in ("x", "y")]

    def gradient(box: Any, of_target: bool) -> tuple[Symbol, ...]:
        turns = tuple(fold[1 + of_target] for fold in folds)
        more = (real(0),) * 4 if within is None else does["by_inner"](within, outer, of_target, real)
        found: tuple[Symbol, ...] = does["by_coordinates"](both, box, turns, slopes, more, matrix, of_target, real)
        return found

    value = value + (folds[0][0] + folds[1][0])
    return value, gradient(p, False) if variant.for_pred else (), gradient(t, True) if variant.for_target else ()


class _Selecting(ast.NodeTransformer):
    """``a if c else b`` as ``select(c, a, b)``: a symbol cannot be asked what it is."""

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        call = ast.Call(ast.Name("select", ast.Load()), [node.test, node.body, node.orelse], [])
        return ast.copy_location(call, node)


@cache
def _rewritten() -> dict[str, Any]:
    """Everything that the formulas' modules define, for symbols."""
    names: dict[str, Any] = {"select": select, "min": less, "max": greater, "np": Mathematics, "__name__": __name__}
    names["scalar"] = lambda function: function
    for module in (scalars, pair, formulas, combined):
        tree = _Selecting().visit(ast.parse(inspect.getsource(module)))
        tree.body = [node for node in tree.body if _is_defined_here(node, module)]
        exec(compile(ast.fix_missing_locations(tree), module.__file__ or module.__name__, "exec"), names)
    return names


def _is_defined_here(node: ast.AST, module: ModuleType) -> bool:
    """Whether a statement defines what formulas need: what they import is defined in ``names``, or typing's."""
    if isinstance(node, ast.ImportFrom):
        return node.module in ("__future__", "collections.abc", "typing")
    if isinstance(node, ast.Import | ast.Try):
        return False
    assigned = getattr(node, "target", None) or (getattr(node, "targets", None) or [None])[0]
    return not (module is scalars and isinstance(assigned, ast.Name) and assigned.id == "scalar")
