"""Types, what numba is told of them, and functions of single numbers, without branches where a loop is over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

__all__ = ["FAR", "TINY", "exact", "exp", "f32", "f64", "i32", "log_1p", "sigmoid", "size", "softplus", "summing"]

f32, f64, i32, size = np.float32, np.float64, np.int32, np.uintp
#: Where those lie that do not count.
FAR = f32(1e18)
TINY = float(np.finfo(f32).tiny)

#: Only the sign of a zero may differ from what is written: what is equal stays equal, and NaN stays NaN.
exact: Any = register_jitable(forceinline=True, fastmath={"nsz"}, error_model="numpy")
#: Sums may be taken in any order.
summing: Any = register_jitable(forceinline=True, fastmath={"nsz", "reassoc"}, error_model="numpy")


@exact
def exp(x: Any) -> Any:
    """The exponential of what is not above 0, to the last digit or two of a float32; 0 where it is tiny."""
    y = x if x >= f32(-87) else f32(0)
    z = np.floor(y * f32(1.4426950408889634) + f32(0.5))
    # log 2 in two parts, of which the first has so few digits that its product is exact.
    r = (y - z * f32(0.693145751953125)) - z * f32(1.4286068202862268e-06)
    # exp(r) = 1 + r + r² q(r), where q is fitted at Chebyshev's nodes, to 3e-10.
    q = f32(0.00019900444082484458)
    q = q * r + f32(0.0013934544624128516)
    q = q * r + f32(0.008333297063350764)
    q = q * r + f32(0.041666456776322115)
    q = q * r + f32(0.16666666722232013)
    q = q * r + f32(0.5000000014291578)
    found = (f32(1) + (r + r * r * q)) * i32((i32(z) + i32(127)) << i32(23)).view(f32)
    # A NaN as it is: of one there is no whole number.
    return f32(0) if x < f32(-87) else found if x == x else x


@exact
def log_1p(u: Any) -> Any:
    """log(1 + u) of u from 0 to 1: twice the area tangent of u / (2 + u)."""
    s = u / (f32(2) + u)
    z = s * s
    p = f32(1 / 13)
    p = p * z + f32(1 / 11)
    p = p * z + f32(1 / 9)
    p = p * z + f32(1 / 7)
    p = p * z + f32(1 / 5)
    p = p * z + f32(1 / 3)
    return f32(2) * (s + s * z * p)


@exact
def softplus(x: Any) -> Any:
    return max(x, 0.0) + np.log1p(np.exp(-abs(x)))


@exact
def sigmoid(x: Any) -> Any:
    u = np.exp(-abs(x))
    return (u if x < 0.0 else 1.0) / (1.0 + u)
