"""Laws of :mod:`nearfar.testing` that several parts of pytorch-metric-learning do not keep, and why.

Mappings to be joined, with ``|``, into the ``expected_failures`` of a spec.
"""

from __future__ import annotations

from nearfar.pml.names import CASTS_WEIGHTS, COLUMN, SINGLE_PAIR, SQUARED


def failing(reason: str, *checks: str) -> dict[str, str]:
    """Checks, ``law`` or ``law[case]``, that fail for one reason."""
    return dict.fromkeys(checks, reason)


LABEL_DTYPE = "Labels in this dtype raise an error of torch's that does not name them."
LABEL_RANGE = failing(
    "A label outside 0 … num_classes − 1 raises an error of torch's about an index, which does not name labels.",
    "labels[negative]",
    "labels[huge]",
    "labels[out_of_range]",
)
EMPTY = failing("The value of an empty batch is NaN: the mean of no elements.", "batches[empty]")
CAST = failing(CASTS_WEIGHTS, "master_parameters")
#: Of a loss that indexes with labels.
CLASSES = LABEL_RANGE | CAST | failing(LABEL_DTYPE, "labels[int32]", "labels[uint8]", "labels[floating]")

ONE_PAIR = failing(SINGLE_PAIR, "one_pair")
REFERENCE_SIZE = failing(
    "A reference set of another embedding size raises an error of torch's that names neither set.",
    "shapes[reference_size]",
)
NOT_ROWS = "Embeddings that are not two-dimensional raise an error of torch's that does not name them."
SILENT_SHAPE = "Embeddings that are not two-dimensional are taken without a word."
SQUARED_DISTANCE = failing(SQUARED, "default_distance")
COLUMNS = failing(COLUMN, "emits", "pml_reducers")
COLUMN_OF_ELEMENTS = failing("Its terms are a column, (n, 1), rather than (n,).", "emits")

NO_BIN = failing(
    "A distance that is no number falls into no bin: index out of bounds.", "aftermath[nan]", "aftermath[inf]"
)

LP_BFLOAT16 = failing("pml.lp_distance takes no bfloat16 on a CPU: NotImplementedError.", "half[bfloat16]")
SUMMED_IN_HALF = failing(
    "The sub-losses of a batch in half precision are added in half precision, under autocast too.",
    "autocast[bfloat16]",
)
VALUE_IN_HALF = failing(
    "Under autocast on a CPU the value of a batch in half precision is in half precision.", "autocast[bfloat16]"
)
PRODUCT_IN_HALF = failing(
    "Under autocast on a CPU similarities are a matrix product in half precision, and so is the value made of them.",
    "autocast[bfloat16]",
)
