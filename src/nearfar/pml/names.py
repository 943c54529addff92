"""How parts of pytorch-metric-learning are named, and what several of them have in common."""

from __future__ import annotations

import re
from typing import TypedDict

from nearfar.spec import Paper

#: A run of capitals and digits, up to the capital that opens the next word; or a capitalised word.
_WORD = re.compile(r"[A-Z][A-Z0-9]*(?=[A-Z][a-z]|$)|[A-Z][a-z0-9]+")

LP = "pml.lp_distance"
COSINE = "pml.cosine_similarity"
DOT = "pml.dot_product_similarity"
SNR = "pml.snr_distance"

MEAN = "pml.mean_reducer"
AVG_NON_ZERO = "pml.avg_non_zero_reducer"
DIVISOR = "pml.divisor_reducer"

#: What a loss accepts that turns a miner's choice into one weight an element.
WEIGHTS = ("pairs", "triplets", "weights")
TUPLES = ("pairs", "triplets")
ANY = ("*",)

SINGLE_PAIR = (
    "A selection of one positive and one negative pair, or less, gives a loss of 0 whatever the embeddings are."
)
CASTS_WEIGHTS = (
    "A batch in half precision outside CUDA autocast casts the learned weights to half precision in place, "
    "and what float32 kept of them is lost."
)
#: The two of their reducers that need a value for each element of the batch.
BY_ANCHOR = ("class_weighted_reducer", "per_anchor_reducer")
IGNORES_DISTANCE = "A distance given to it is ignored without a word."
SQUARED = "The default distance is squared: LpDistance(power=2)."
COLUMN = (
    "Its terms are a column, (n, 1): with class_weighted_reducer every class has the mean of the weights without a "
    "word, and per_anchor_reducer raises RuntimeError."
)
NO_VARIANCE = (
    "An embedding whose coordinates are all equal, such as zeros, has no variance to divide by: the value is infinite."
)
NORMALISES = "Embeddings are normalised by default; in the paper they are not."

HERMANS = Paper(
    authors="Hermans, Beyer, Leibe",
    title="In Defense of the Triplet Loss for Person Re-Identification",
    year=2017,
    arxiv="1703.07737",
)
WU = Paper(
    authors="Wu, Manmatha, Smola, Krähenbühl",
    title="Sampling Matters in Deep Embedding Learning",
    year=2017,
    arxiv="1706.07567",
)
FACENET = Paper(
    authors="Schroff, Kalenichenko, Philbin",
    title="FaceNet: A Unified Embedding for Face Recognition and Clustering",
    year=2015,
    arxiv="1503.03832",
)
TUPLET = Paper(authors="Yu, Tao", title="Deep Metric Learning With Tuplet Margin Loss", year=2019, venue="ICCV 2019")
ANGULAR = Paper(
    authors="Wang, Zhou, Wen, Liu, Lin", title="Deep Metric Learning with Angular Loss", year=2017, arxiv="1708.01682"
)
MULTI_SIMILARITY = Paper(
    authors="Wang, Han, Huang, Dong, Scott",
    title="Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning",
    year=2019,
    arxiv="1904.06627",
)
SIGNAL_TO_NOISE = Paper(
    authors="Yuan, Deng, Tang, Tang, Chen",
    title="Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning",
    year=2019,
    arxiv="1904.02616",
)


def snake_case(class_name: str) -> str:
    """The name of a part from the name of its class.

    >>> snake_case("ArcFaceLoss"), snake_case("VICRegLoss"), snake_case("P2SGradLoss")
    ('arc_face_loss', 'vic_reg_loss', 'p2s_grad_loss')
    """
    return "_".join(_WORD.findall(class_name)).lower()


class Named(TypedDict):
    """The fields of a spec that follow from its class."""

    name: str
    target: str
    aliases: tuple[str, ...]


def named(where: str) -> Named:
    """Name, target and alias of the class at ``where`` within pytorch_metric_learning: ``"losses.x:XLoss"``.

    The module is the defining one, so that the constructor can be read from its source.
    """
    class_name = where.partition(":")[2]
    return Named(name=snake_case(class_name), target=f"pytorch_metric_learning.{where}", aliases=(class_name,))
