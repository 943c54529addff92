"""The plugin ``pml``: how parts are named, and that describing them imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nearfar import pml
from nearfar.pml.names import snake_case

SPECS = [*pml.nearfar_losses(), *pml.nearfar_miners(), *pml.nearfar_reducers(), *pml.nearfar_distances()]


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("ArcFaceLoss", "arc_face_loss"),
        ("SubCenterArcFaceLoss", "sub_center_arc_face_loss"),
        ("NTXentLoss", "nt_xent_loss"),
        ("NPairsLoss", "n_pairs_loss"),
        ("NCALoss", "nca_loss"),
        ("ProxyNCALoss", "proxy_nca_loss"),
        ("FastAPLoss", "fast_ap_loss"),
        ("VICRegLoss", "vic_reg_loss"),
        ("PNPLoss", "pnp_loss"),
        ("P2SGradLoss", "p2s_grad_loss"),
        ("SNRDistance", "snr_distance"),
        ("LpDistance", "lp_distance"),
        ("HDCMiner", "hdc_miner"),
        ("CrossBatchMemory", "cross_batch_memory"),
        ("EmbeddingsAlreadyPackagedAsTriplets", "embeddings_already_packaged_as_triplets"),
        ("ResNet50", "res_net50"),
        ("LossV2", "loss_v2"),
    ],
)
def test_a_class_name_becomes_snake_case(class_name, name):
    assert snake_case(class_name) == name


def test_no_two_parts_share_a_name():
    names = [name for spec in SPECS for name in (spec.name, *spec.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_name_and_alias_follow_from_the_class(spec):
    class_name = spec.target.rpartition(":")[2]
    assert spec.name == snake_case(class_name)
    assert spec.aliases == (class_name,)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_sentence_is_one(spec):
    for text in (spec.summary, *spec.deviations, *map(str, spec.defects), *spec.expected_failures.values()):
        assert text.endswith(".")
        assert text.strip() == text
        assert "  " not in text


def test_describing_the_parts_imports_nothing_heavy():
    code = (
        "import sys; from nearfar import pml; "
        "[*pml.nearfar_losses(), *pml.nearfar_miners(), *pml.nearfar_reducers(), *pml.nearfar_distances()]; "
        "print(sorted({'torch', 'numpy', 'pytorch_metric_learning'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
