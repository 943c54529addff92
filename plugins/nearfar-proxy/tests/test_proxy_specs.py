"""What the entry module says of the losses is true of them."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import torch

from nearfar_proxy.plugin import nearfar_losses

SPECS = {spec.name: spec for spec in nearfar_losses()}
C, D = 5, 4


def part(name):
    module, cls = SPECS[name].target.split(":")
    return getattr(importlib.import_module(module), cls)


def test_the_names_are_these():
    assert list(SPECS) == [
        "proxy_nca",
        "proxy_nca_pp",
        "proxy_anchor",
        "soft_triple",
        "proxy_gml",
        "center",
        "contrastive_center",
        "triplet_center",
        "island",
        "ring",
        "regular_face",
        "center_invariant",
    ]


def test_each_says_that_with_nothing_selected_it_is_zero():
    """Where pytorch-metric-learning gives the loss of the whole batch."""
    for name, spec in SPECS.items():
        said = " ".join(spec.deviations)
        assert re.search(r"(nothing selected|selected nothing) .*the loss is 0", said), name


def test_the_entry_module_is_light():
    code = "import sys, nearfar_proxy.plugin as p; list(p.nearfar_losses()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_proxy_nca_pp_is_a_softmax_at_a_temperature_of_a_ninth():
    loss = part("proxy_nca_pp")(C, D)
    x, y = torch.randn(8, D), torch.arange(8) % C
    unit = torch.nn.functional.normalize
    # Both sides are multiplied by 3 before the squared distance, as in the authors' code.
    logits = -(torch.cdist(3 * unit(x), 3 * unit(loss.weight)) ** 2)
    torch.testing.assert_close(loss(x, y), torch.nn.functional.cross_entropy(logits, y))
