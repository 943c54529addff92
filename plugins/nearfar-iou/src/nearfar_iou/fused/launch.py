"""Whether box losses can be computed by a kernel of Triton's, and the launch of it."""

from __future__ import annotations

import linecache
import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.compiled import is_plain
from nearfar_iou.compiled.tier import Formula

__all__ = ["fits", "launch"]

logger = logging.getLogger(__name__)

#: Boxes a program.
BLOCK = 256
#: Kernels for the numbers of a loss; with further ones torch computes.
MOST = 8


@cache
def triton() -> Any:
    """The package, or None where it cannot be used."""
    try:
        import triton as package
        import triton.language
    except Exception as error:  # not installed, or not for this machine
        logger.debug("box losses on a GPU are computed by torch alone: %s", error)
        return None
    return package


def fits(*tensors: Tensor) -> bool:
    """Whether kernels can read these: plain numbers in the memory of a GPU, and nobody watches what is done."""
    return all(each.is_cuda for each in tensors) and is_plain(*tensors) and triton() is not None


def launch(
    formula: Formula,
    extents: tuple[float, float, float, float],
    pred: Tensor,
    target: Tensor,
    values: Tensor,
    gradients: list[Tensor | None],
) -> bool:
    """Write the losses (n,) of boxes (n, 4), and the gradients that there is room for; whether a kernel can be made."""
    by_pred, by_target = gradients
    if (formula.name, formula.around) in _refused or not _is_settled(formula):
        return False
    n = pred.shape[0]
    if n == 0:
        return True
    pred, target = pred.contiguous(), target.contiguous()
    try:
        kernel = _kernel(formula, extents, pred.dtype == torch.float64, by_pred is not None, by_target is not None)
        # Without fused products: of equal boxes W h − H w is 0 only if both are rounded.
        kernel[(-(-n // BLOCK),)](pred, target, values, by_pred, by_target, n, BLOCK=BLOCK, enable_fp_fusion=False)
    except Exception as error:  # no compiler, or a defect of it
        _refused.add((formula.name, formula.around))
        logger.debug("%s cannot be compiled for this GPU: %s", formula.name, error)
        return False
    return True


#: The losses whose kernels could not be compiled, which is not tried again.
_refused: set[tuple[str, str]] = set()
#: The numbers that each loss has had.
_numbers: dict[tuple[str, str], set[object]] = {}


def _is_settled(formula: Formula) -> bool:
    """Whether its numbers are among the first few that it has had.

    They are constants in a kernel, and one that a schedule moves would have another compiled at every step.
    """
    seen = _numbers.setdefault((formula.name, formula.around), set())
    if len(seen) < MOST:
        seen.add((formula.numbers, formula.number))
    return (formula.numbers, formula.number) in seen


@cache
def _kernel(*variant: Any) -> Any:
    from nearfar_iou.fused.writing import Variant, written

    text = "import triton.language as tl\n\n" + written(Variant(*variant))
    # Triton reads the source of what it compiles where a debugger would: there is no file of that name.
    file = f"<nearfar_iou {variant}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, file, "exec"), names)
    return triton().jit(names["kernel"])
