"""Laws that speak of parts in general find what is known to be wrong with those of pytorch-metric-learning 2.9.

The defects were reproduced by hand, and are numbered as they were then; no law used here names a part of that library.
``test_conformance`` holds all of its parts to all laws.
"""

from __future__ import annotations

import dataclasses

import pytest

from nearfar.registry import default_registry
from nearfar.testing import checks_of

#: Number of a defect, the check that finds it, and what that has to say.
FOUND = [
    ("A1", "smooth_ap_loss::clustering", "perfect clusters cost 0.4"),
    ("A1", "smooth_ap_loss::permutation", "which class comes first changes the value"),
    ("A3", "instance_loss::clustering", "a batch in one point 2.07944"),
    ("A3", "instance_loss::relabelling", "the value goes from"),
    ("A4", "nca_loss::reference_is_batch", "itself not selected"),
    ("A5", "triplet_margin_loss::reference_used[swap=True]", "IndexError"),
    ("A5", "triplet_margin_loss::reference_permutation", "IndexError"),
    ("A6", "lifted_structure_loss::reference_permutation", "the order of the reference set takes the value from"),
    ("A7", "threshold_consistent_margin_loss::reference_used", "IndexError"),
    ("A8", "angular_loss::selection_honoured[negatives]", "some of the negatives taken out"),
    ("A9", "dynamic_soft_margin_loss::repeated", "backward through the graph a second time"),
    ("A9", "dynamic_soft_margin_loss::copies[deepcopy]", "no copy can be made"),
    ("A10", "dynamic_soft_margin_loss::extremes[opposite]", "index 10 is out of bounds"),
    ("A11", "histogram_loss::extremes[duplicates]", "index 101 is out of bounds"),
    ("A12", "tuplet_margin_loss::extremes[duplicates]", "the value is nan"),
    ("A13", "ranked_list_loss::clustering", "a batch in one point 0"),
    ("A14", "circle_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "contrastive_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "generalized_lifted_structure_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "intra_pair_variance_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "lifted_structure_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "multi_similarity_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "nt_xent_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "signal_to_noise_ratio_contrastive_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "sup_con_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A14", "tuplet_margin_loss::one_pair", "the value is 0 and the gradient zero"),
    ("A15", "manifold_loss::batches[one_row]", "negative dimension"),
    ("A16", "pnp_loss::half[float16]", "the gradient of embeddings is not finite"),
    ("A17", "sub_center_arc_face_loss::signature", "raises KeyError"),
    ("A21", "per_anchor_reducer::reference_terms", "IndexError"),
    ("A21", "proxy_anchor_loss::emits", "the batch has 4 elements"),
    ("A22", "cross_batch_memory::resumed", "goes on differently"),
    ("A24", "vic_reg_loss::inputs_needed", "called without ref_emb"),
]


@pytest.fixture(scope="module")
def checks():
    return {check.id: check for check in checks_of(default_registry(), "pml")}


@pytest.mark.parametrize(("name", "says"), [row[1:] for row in FOUND], ids=[" ".join(row[:2]) for row in FOUND])
def test_a_known_defect_is_found_by_a_law_that_knows_nothing_of_it(checks, name, says):
    check = checks[f"pml.{name}"]
    assert check.law.group != "interoperation"  # whose laws name pytorch-metric-learning's parts
    assert check.key in check.subject.expected_failures
    spec = dataclasses.replace(check.subject.spec, expected_failures={})
    entry = dataclasses.replace(check.subject.entry, spec=spec)
    unsuspecting = dataclasses.replace(check, subject=dataclasses.replace(check.subject, entry=entry))
    result = unsuspecting.run()
    assert result.status == "failed"
    assert says in result.reason


def test_most_of_the_numbered_defects_are_found():
    """All of A1 to A17, A21 and A24 but A2, of a regulariser, about which there is no law."""
    assert {number for number, *_ in FOUND} >= {f"A{n}" for n in (1, *range(3, 18), 21, 24)}
