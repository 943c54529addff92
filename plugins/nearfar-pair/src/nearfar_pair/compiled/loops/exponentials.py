"""What anchors cost by sums of exponentials."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from nearfar_pair.compiled.loops.distances import distances, of_square, split
from nearfar_pair.compiled.loops.rows import greatest_of, least_of, nans, sum_of
from nearfar_pair.compiled.loops.scalars import FAR, TINY, exact, exp, f32, f64, i32, sigmoid, size, softplus

__all__ = ["soft"]

#: What an anchor costs, as :mod:`nearfar_pair.compiled.rules` has it.
ODDS, MEAN_ODDS, PROBABILITY, HINGE_OF_BOTH, CIRCLE, EACH_SIDE, MEAN_SHARE = range(7)
EACH_ODDS, EACH_DIFFERENCE, EACH_RELAXED = range(7, 10)
#: Below the logarithm of any sum, and such that others can be taken from it.
BELOW = 1e30


@exact
def _exponents(d: Any, found: Any, scale: Any, is_circle: Any, margin: Any) -> None:
    """Write what the exponentials of a row of negatives are of: far below all others of what is far."""
    m = size(d.shape[0])
    if is_circle:
        for j in range(m):
            alpha = (margin if d[j] > margin else d[j]) - margin
            found[j] = -FAR if d[j] == FAR else scale * (alpha * (d[j] + margin))
    else:
        for j in range(m):
            found[j] = -FAR if d[j] == FAR else scale * d[j]


@exact
def _exponentials(x: Any, first: Any) -> None:
    """The exponentials of what a row is less than its greatest, in place."""
    for j in range(size(x.shape[0])):
        x[j] = exp(x[j] - first)


@exact
def _exponent(d: Any, scale: Any, rule: int, number: Any) -> Any:
    """What the exponential of a positive is of, and its slope by the distance."""
    if rule == CIRCLE:
        alpha = scale * max(d + (1.0 + number), 0.0)
        return alpha * (d + (1.0 - number)), alpha
    if rule == EACH_RELAXED:
        cosine, sine = np.cos(number), np.sin(number)
        c = min(max(d, -cosine), 1.0)
        # Of the product, not of 1 − c²: near 1 that has lost its digits. Of what is opposite its root has no slope.
        s = np.sqrt(max((1.0 + c) * (1.0 - c), TINY))
        inside = (d > -cosine) & (d < 1.0)
        return scale * (s * sine - c * cosine), scale * (-sine * c / s - cosine) if inside else 0.0
    return scale * d, scale


@exact
def _beside(negative: Any, place: Any, positive: Any, k: Any, slack: Any, lanes: Any) -> Any:
    """Leave negatives nearer than the farthest positive and positives farther than the nearest negative, give or take
    a slack; how many positives, and whether there are negatives."""
    farthest, nearest, kept = -FAR, least_of(negative, lanes), 0
    for t in range(k):
        farthest = max(farthest, positive[t])
    for t in range(k):
        if nearest - positive[t] < slack:
            place[kept], positive[kept] = place[t], positive[t]
            kept += 1
    left = i32(0)
    for j in range(size(negative.shape[0])):
        is_left = (negative[j] - farthest < slack) & (negative[j] < FAR)
        left += i32(1) if is_left else i32(0)
    for j in range(size(negative.shape[0])):
        negative[j] = negative[j] if negative[j] - farthest < slack else FAR
    return kept, left > 0


@exact
def _by_exponents(d: Any, shares: Any, by: Any, is_circle: Any, margin: Any, kind: int) -> None:
    """Write the slopes by half the squared distance in place of the distances, of that by the exponents."""
    m = size(d.shape[0])
    if is_circle:
        for j in range(m):
            alpha = (margin if d[j] > margin else d[j]) - margin
            d[j] = of_square(by * shares[j] * alpha, d[j], kind)
    else:
        for j in range(m):
            d[j] = of_square(by * shares[j], d[j], kind)


def soft(  # type: ignore[no-untyped-def]
    p,
    own,
    classes,
    square,
    squares,
    x,
    y,
    costs,
    counts,
    of_x,
    start,
    last,
    m,
    dim,
    is_self,
    kind,
    rule,
    near,
    far,
    number,
    slack,
):
    """What anchors cost by sums of exponentials, of ``near`` times the distances of the positives and of ``far`` times
    those of the negatives; by one of the rules that :mod:`nearfar_pair.compiled.rules` names. Where ``slack``
    is finite, of the pairs that the farthest positive and the nearest negative leave with that.

    As :func:`triplets`; what is counted are the terms of an anchor.
    """
    p, own, classes = carray(p, (last - start, m)), carray(own, (last,)), carray(classes, (m,))
    square, squares, x, y = carray(square, (last,)), carray(squares, (m,)), carray(x, (last, dim)), carray(y, (m, dim))
    costs, counts, of_x = carray(costs, (last,)), carray(counts, (last,)), carray(of_x, (last,))
    negative, positive, place, lanes = np.empty(m, f32), np.empty(m, f32), np.empty(m, np.uintp), np.empty(16, f32)
    weight, steep = np.empty(m, f64), np.empty(m, f64)
    rule, is_circle, margin = int(rule), rule == CIRCLE, f32(number)
    for i in range(size(start), size(last)):
        d = p[i - size(start)]
        distances(d, i, is_self, square[i], squares, kind, x[i], y)
        k, of_class = split(d, classes, own[i], i, is_self, negative, place, positive)
        # The logarithm of each sum, and the share that each has of it.
        has_negative, of_far, by_far, total = of_class < m, -BELOW, 0.0, f32(1)
        is_none = nans(d) > 0
        if slack < np.inf:
            k, has_negative = _beside(negative, place, positive, k, f32(slack), lanes)
        if has_negative and not is_none:
            _exponents(negative, negative, f32(far), is_circle, margin)
            first = greatest_of(negative, lanes)
            _exponentials(negative, first)
            total = sum_of(negative, size(m))
            of_far = f64(first) + np.log(f64(total))
        of_near, greatest = -BELOW, -np.inf
        for t in range(k):
            weight[t], steep[t] = _exponent(f64(positive[t]), near, rule, number)
            greatest = max(greatest, weight[t])
        if k:
            shared = 0.0
            for t in range(k):
                shared += np.exp(weight[t] - greatest)
            of_near = greatest + np.log(shared)
        cost, count, by_near = 0.0, 1, 0.0
        if rule <= PROBABILITY:
            count = 1 if k else 0
            if k:
                odds = of_far - of_near
                by_far = sigmoid(odds)
                cost = softplus(odds)
                if rule == PROBABILITY:
                    cost = by_far
                    by_far = by_far * sigmoid(-odds)
                elif rule == MEAN_ODDS:
                    cost += np.log(f64(k))
                by_near = -by_far
        elif rule <= CIRCLE:
            count = 1 if k and has_negative else 0
            if count:
                both = of_near + of_far
                if rule == CIRCLE:
                    cost = softplus(both)
                    by_far = sigmoid(both)
                else:
                    cost = max(both + number, 0.0)
                    by_far = 1.0 if cost > 0.0 else 0.0
                by_near = by_far
        elif rule == EACH_SIDE:
            cost = softplus(of_near - near * number) / near + softplus(of_far - far * number) / -far
            by_near, by_far = sigmoid(of_near - near * number) / near, sigmoid(of_far - far * number) / -far
        elif rule == MEAN_SHARE:
            count = 1 if k else 0
            if k:
                odds = of_far - of_near
                every = of_near + softplus(odds)
                for t in range(k):
                    cost += every - weight[t]
                cost /= k
                by_far = sigmoid(odds)
                by_near = sigmoid(-odds)
        for t in range(k):
            share = by_near * np.exp(weight[t] - of_near)
            if rule == MEAN_SHARE:
                share -= 1.0 / k
            elif rule == EACH_ODDS or (rule == EACH_RELAXED and has_negative):
                odds = of_far - weight[t]
                cost += softplus(odds)
                share = -sigmoid(odds)
                by_far -= share
            elif rule == EACH_DIFFERENCE and has_negative:
                cost += of_far - weight[t]
                share = -1.0
                by_far += 1.0
            weight[t] = share * steep[t]
        if rule == EACH_ODDS:
            count = k
        elif rule >= EACH_DIFFERENCE:
            count = k if has_negative else 0
        costs[i] = f32(np.nan) if is_none else f32(cost)
        counts[i] = count
        if has_negative and not is_none:
            _by_exponents(d, negative, f32(by_far * far / total), is_circle, margin, kind)
        else:
            for j in range(size(m)):
                d[j] = f32(0)
        for t in range(k):
            d[place[t]] = of_square(f32(weight[t]), positive[t], kind)
        if is_self:
            d[i] = f32(0)
        of_x[i] += sum_of(d, size(m))
