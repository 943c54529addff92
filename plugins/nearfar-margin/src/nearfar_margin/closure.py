"""What a function computes with besides its arguments, found in the graph that autograd records of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar_margin.declaration import Rows

__all__ = ["differentiated_through", "with_fields"]


def differentiated_through(
    others: Callable[[Tensor, Rows], Tensor], cosines: Tensor, rows: Rows
) -> tuple[list[str], list[Tensor]]:
    """The fields of ``rows``, and the learned tensors besides, that the gradient of ``others`` goes to.

    Both are empty where it leaves ``cosines`` (n, k) as they are.

    Raises
    ------
    InputError
        It uses what was computed elsewhere: nothing tells how to go back through that.
    """
    fields = {
        f.name: value.detach().requires_grad_()
        for f in dataclasses.fields(rows)
        if isinstance(value := getattr(rows, f.name), Tensor) and value.requires_grad
    }
    with torch.enable_grad():
        cosines = cosines.detach().requires_grad_()
        before = cosines.clone().grad_fn
        result = others(cosines, with_fields(rows, fields))
    assert before is not None
    known = {id(value) for value in fields.values()} | {id(cosines)}
    leaves = {id(leaf): leaf for leaf in _leaves(result, before._sequence_nr())}
    used = [name for name, value in fields.items() if id(value) in leaves]
    return used, [leaf for key, leaf in leaves.items() if key not in known]


def with_fields(rows: Rows, fields: dict[str, Tensor]) -> Rows:
    """``rows`` with these fields in place of its own, and no graph behind the others."""
    detached = {
        f.name: value.detach()
        for f in dataclasses.fields(rows)
        if isinstance(value := getattr(rows, f.name), Tensor) and value.requires_grad
    }
    return dataclasses.replace(rows, **detached | fields)


def _leaves(result: Tensor, before: int) -> Iterator[Tensor]:
    """The leaves of the graph of ``result``, all of which was recorded after the node numbered ``before``."""
    if result.grad_fn is None:
        if result.requires_grad:
            yield result
        return
    nodes: list[Any] = [result.grad_fn]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        elif node._sequence_nr() <= before:
            raise InputError(
                "the chunked engine cannot differentiate others(c, rows): it uses a tensor that was computed before "
                f"(by {node.name()}) and is neither a parameter nor a field of rows; put it there in prepare(rows), "
                "or use engine='plain'"
            )
        else:
            nodes.extend(following for following, _ in node.next_functions)
