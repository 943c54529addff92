"""The page of the family says of every loss what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nearfar
from nearfar.signature import read_target
from nearfar_margin.plugin import nearfar_losses

PAGE = Path(__file__).parents[3] / "docs" / "margin.md"
SPECS = {spec.name: spec for spec in nearfar_losses()}


def rows():
    """Name → cells of the table of losses and engines."""
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| Loss | plain | chunked | on ranks |") :].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name.strip("`"): rest for name, *rest in cells}


def test_the_table_has_every_loss_in_the_order_of_the_plugin():
    assert list(rows()) == list(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_a_row_says_what_the_loss_takes_learns_and_keeps(name):
    """That the engines agree is held for every loss by test_margin_engines and test_margin_sharded."""
    plain, chunked, ranks, smoothing, learned, kept = rows()[name]
    signature = read_target(SPECS[name].target)
    assert plain == chunked == ranks == "yes"
    assert (smoothing == "yes") == ("label_smoothing" in signature)
    text = f"{name}({SPECS[name].example})" if SPECS[name].example else name
    loss = nearfar.create_loss(text, num_classes=5, embedding_size=4)
    assert re.findall(r"`([\w.]+)`", learned) == [n for n, _ in loss.named_parameters() if n != "weight"]
    assert re.findall(r"`([\w.]+)`", kept) == [n for n, _ in loss.named_buffers()]
