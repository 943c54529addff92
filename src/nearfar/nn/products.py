"""Products of matrices, by the faster of the libraries that torch brings along."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

__all__ = ["add_product", "minus_product", "product", "write_product"]

#: So many multiplications pay for the call: oneDNN looks up a kernel each time.
LEAST = 2**22
#: The narrowest side for which its kernels are made.
NARROWEST = 16


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product of matrices (n, k) and (k, m), to rounding what ``a @ b`` is; it may lie in memory column by column.

    For loops over chunks in hand-written passes: nothing is recorded for a gradient where oneDNN computes it. That is
    on processors with AVX-512 that are not Intel's, in float32: MKL, which torch calls, leaves half of their width
    unused, and oneDNN is twice as fast there. Which of the two it is depends on shapes alone, so that a run can be
    repeated to the bit.
    """
    if not _suits(a, b):
        return a @ b
    if a.is_contiguous() or len(a) <= b.shape[1]:
        return _rows_times(a, b)
    # Of what has to be copied so that rows are contiguous, the smaller is.
    return _rows_times(b.T, a.T).T


def add_product(total: Tensor, a: Tensor, b: Tensor, *, alpha: float = 1.0) -> None:
    """Add ``alpha`` times the product of matrices to ``total`` (n, m), in place; as :func:`product`."""
    if _suits(a, b):
        total.add_(product(a, b), alpha=alpha)
    else:
        total.addmm_(a, b, alpha=alpha)


def minus_product(plus: Tensor | None, a: Tensor, b: Tensor, *, factor: float = 1.0) -> Tensor:
    """``factor`` times ``plus`` less the product of matrices, ``plus`` (n, m) being 0 where there is none."""
    if _suits(a, b):
        found = product(a, b)
        found = found.neg_() if plus is None else torch.sub(plus, found, out=found)
        return found if factor == 1 else found.mul_(factor)
    beta, plus = (0, a.new_empty(())) if plus is None else (factor, plus)
    return torch.addmm(plus, a, b, beta=beta, alpha=-factor)


def write_product(out: Tensor, a: Tensor, b: Tensor, *, alpha: float = 1.0, plus: Tensor | None = None) -> Tensor:
    """Write ``alpha`` times the product of matrices to ``out`` (n, m), which is returned; as :func:`product`.

    ``plus`` (m,) is added to each row where there is any.
    """
    if not _suits(a, b):
        beta, plus = (0, out) if plus is None else (1, plus)
        return torch.addmm(plus, a, b, beta=beta, alpha=alpha, out=out)
    found = product(a, b)
    return torch.mul(found, alpha, out=out) if plus is None else torch.add(plus, found, alpha=alpha, out=out)


def _rows_times(a: Tensor, b: Tensor) -> Tensor:
    b = b if b.is_contiguous() or b.T.is_contiguous() else b.contiguous()
    found: Tensor = torch.ops.mkldnn._linear_pointwise(a.contiguous(), b.T, None, "none", [], "")
    return found


def _suits(a: Tensor, b: Tensor) -> bool:
    # What is false most cheaply first: of small matrices asking is a share of the whole.
    (n, k), m = a.shape, b.shape[1]
    if n * k * m < LEAST or min(n, k, m) < NARROWEST:
        return False
    if a.dtype != torch.float32 or a.device.type != "cpu" or type(a) is not Tensor or type(b) is not Tensor:
        return False
    if b.dtype != torch.float32 or (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
        return False
    return _available() and torch._C._get_mkldnn_enabled() and not torch.compiler.is_compiling()


@functools.cache
def _available() -> bool:
    """Whether this torch has oneDNN, in the form that takes plain tensors, and this processor what it is faster on."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and not _is_intel()
    return wide and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _is_intel() -> bool:
    """Whether the processor is known to be one whose whole width MKL uses: it is faster than oneDNN there."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # of later versions of torch
    return capabilities is not None and str(capabilities().get("cpu_name", "")).startswith("Intel")
