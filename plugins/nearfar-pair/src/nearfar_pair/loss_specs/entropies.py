"""Cross-entropies of positives among others: what the plugin says of these losses."""

from __future__ import annotations

from nearfar.spec import LossSpec, Preset
from nearfar_pair.loss_specs.shared import COSINE, NORMALIZED, loss, published
from nearfar_pair.papers import KHOSLA

__all__ = ["ENTROPIES"]

ENTROPIES: tuple[LossSpec, ...] = (
    loss(
        "sup_con",
        "SupCon",
        "Cross-entropy of each anchor's positives among all others of the batch.",
        KHOSLA,
        graded=True,
        schedulable=("temperature",),
        memory=1,
        family="contrastive",
        aliases=("supcon",),
        deviations=(
            "Without the factor temperature / base temperature of the reference code, 1 in its experiments.",
            "Anchors without a positive are left out of the mean; the paper's two views leave none.",
        ),
    ),
    loss(
        "nt_xent",
        "NTXent",
        "Cross-entropy of each positive pair against the anchor's other pairs.",
        published(
            "Chen, Kornblith, Norouzi, Hinton",
            "A Simple Framework for Contrastive Learning of Visual Representations",
            2020,
            "2002.05709",
        ),
        schedulable=("temperature",),
        family="contrastive",
        deviations=(
            "SimCLR has one positive an anchor. With several, each stands against the negatives alone, and by "
            'others="all" against the other positives too.',
        ),
        presets={
            "simclr_cifar10": Preset(arguments={"temperature": 0.5}, source="Chen et al. (2020), section B.9, CIFAR-10")
        },
        emits=("pos_pair",),
    ),
    loss(
        "info_nce",
        "InfoNCE",
        "Cross-entropy of an anchor's positives together against all others.",
        published(
            "van den Oord, Li, Vinyals",
            "Representation Learning with Contrastive Predictive Coding",
            2018,
            "1807.03748",
        ),
        memory=1,
        family="contrastive",
        deviations=("The paper has one positive an anchor; with several their sum stands inside the logarithm.",),
        presets={
            "clip": Preset(
                arguments={"temperature": 0.07, "learned": True},
                source="Radford et al. (2021), arXiv:2103.00020, section 2.5; one direction of its two",
            )
        },
    ),
    loss(
        "decoupled_contrastive",
        "DecoupledContrastive",
        "The cross-entropy of a positive pair without the positive in its denominator.",
        published("Yeh, Hong, Hsu, Liu, Chen, LeCun", "Decoupled Contrastive Learning", 2021, "2110.06848"),
        schedulable=("temperature",),
        family="contrastive",
        aliases=("dcl",),
        deviations=("An anchor may have several positives, each with a cost of its own; the paper's has one.",),
        presets={"dclw": Preset(arguments={"sigma": 0.5}, source="Yeh et al. (2021), the weighted form, section 4")},
        emits=("pos_pair",),
    ),
    loss(
        "n_pair",
        "NPair",
        "A positive whose inner product with the anchor is above those of all negatives, and embeddings kept short.",
        published("Sohn", "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", 2016, "NeurIPS"),
        schedulable=("l2_weight",),
        family="contrastive",
        deviations=(
            "Every sample is an anchor, with all its positives and negatives; the paper's batch has one pair a class, "
            "which anchors as embeddings and positives as references give.",
            "The weight of the lengths, which the paper does not give, is that of TensorFlow's npairs_loss, without "
            "the quarter it is multiplied with there.",
        ),
        emits=("pos_pair", "element"),
        default_distance="core.dot",
        uses_norm=True,
    ),
    loss(
        "tuplet_margin",
        "TupletMargin",
        "A positive nearer in angle than all negatives at once, the hardest of which count most.",
        published("Yu, Tao", "Deep Metric Learning with Tuplet Margin Loss", 2019, "ICCV"),
        schedulable=("margin", "scale"),
        family="contrastive",
        deviations=(
            "An angle below the slack counts as the slack; by the paper's cos(θ − β) near positives are pushed away.",
        ),
        emits=("pos_pair",),
        distances=COSINE,
    ),
    loss(
        "nca",
        "NCA",
        "The chance that an anchor, choosing a neighbour at random, chooses one of its class.",
        published("Goldberger, Roweis, Hinton, Salakhutdinov", "Neighbourhood Components Analysis", 2004, "NeurIPS"),
        schedulable=("scale",),
        memory=1,
        family="neighbours",
        deviations=(
            NORMALIZED,
            "Distances are multiplied with a scale; the paper has none, which is a scale of 1.",
        ),
        default_distance="core.squared_euclidean",
    ),
)
