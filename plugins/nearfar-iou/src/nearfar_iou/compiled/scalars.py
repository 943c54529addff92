"""Arithmetic on single numbers, without branches, so that a loop over it becomes one over whole vector registers.

``real`` is the type that everything is computed in, :class:`numpy.float32` or :class:`numpy.float64`: a literal would
be a float64 and make everything after it one too.
"""

from __future__ import annotations

from typing import Any

try:
    from numba.extending import register_jitable
except Exception:  # not installed, or not for this version of numpy: formulas are read by other tiers too
    register_jitable = None

__all__ = ["arctan", "floored", "scalar", "sign"]

#: What a kernel is made of: it disappears in it. Only the sign of a zero may differ from what is written, so that
#: adding the zeros that most losses have for most slopes costs nothing; NaN stays NaN.
scalar: Any = (
    (lambda function: function)
    if register_jitable is None
    else register_jitable(forceinline=True, fastmath={"nsz"}, error_model="numpy")
)


@scalar
def sign(x: Any, real: Any) -> Any:
    """−1, 0 or 1."""
    zero, one = real(0), real(1)
    # Of one choice within another the compiler would make a branch.
    up, down = one if x > zero else zero, one if x < zero else zero
    return up - down


@scalar
def floored(x: Any, least: Any) -> Any:
    """The greater of both; NaN where x is."""
    return least if x <= least else x


@scalar
def arctan(y: Any, x: Any, real: Any) -> Any:
    """The angle of (x, y) for x of at least 0, to the last digit or two of a float64; NaN for (0, 0)."""
    # The C library's takes one number at a time. Here the angle is brought below π/8, once by the diagonal and once by
    # half of it, where a polynomial of arctan(r) / r − 1 over r², fitted to 5e-18 at Chebyshev's nodes, is enough.
    size = abs(y)
    steep = size > x
    above, below = (x, size) if steep else (size, x)
    far = above > real(0.41421356237309503) * below
    above, below = (above - below, above + below) if far else (above, below)
    r = above / below
    z = r * r
    p = real(-0.019175404711104933678)
    p = p * z + real(0.039230447784793095235)
    p = p * z + real(-0.050854078345894842573)
    p = p * z + real(0.058581409048663282818)
    p = p * z + real(-0.066645105255089365988)
    p = p * z + real(0.076921831253768920895)
    p = p * z + real(-0.090909045753064890845)
    p = p * z + real(0.11111111015187018721)
    p = p * z + real(-0.14285714284665680761)
    p = p * z + real(0.19999999999995516545)
    p = p * z + real(-0.33333333333333330156)
    angle = r + r * z * p
    angle = angle + real(0.7853981633974483096) if far else angle
    angle = real(1.5707963267948966192) - angle if steep else angle
    return -angle if y < real(0) else angle
