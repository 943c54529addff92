"""Entry module of the plugin ``proxy``."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.hookspecs import hookimpl
from nearfar.spec import LossSpec, Paper, Preset
from nearfar_proxy.recipes import RECIPES

ACCEPTS = ("pairs", "triplets", "weights")
NEEDS = ("num_classes", "embedding_size")
#: As in the authors' code of Proxy-Anchor (--lr 1e-4, proxies at 100 times that) and of SoftTriple (--modellr 1e-4,
#: --centerlr 1e-2).
PROXY_RATE = 100.0
UNMINED = (
    "An element a miner did not select weighs 0, so with nothing selected the loss is 0; pytorch-metric-learning "
    "then weighs every element by 1."
)
#: Of losses around another one.
UNSAID = "Where a miner selected nothing the class weights cost nothing either: the loss is 0."


@hookimpl
def nearfar_recipes() -> tuple[RecipeSpec, ...]:
    return RECIPES


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="proxy_nca",
            target="nearfar_proxy.proxy_nca:ProxyNCA",
            summary="Neighbourhood components with a learned proxy for each class in place of its samples.",
            schedulable=("scale",),
            family="proxy",
            learning_rate=PROXY_RATE,
            paper=Paper(
                authors="Movshovitz-Attias, Toshev, Leung, Ioffe, Singh",
                title="No Fuss Distance Metric Learning using Proxies",
                year=2017,
                arxiv="1703.07464",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            distances=("*",),
            default_distance="core.squared_euclidean",
            deviations=(
                "Distances are multiplied with a scale, which the paper does not have; at 1 it is the paper's.",
                "As the paper leaves the own proxy out of the denominator, values may be below zero, and "
                "core.avg_non_zero takes those for satisfied; denominator='all' has none.",
                "For dynamic assignment the paper samples triplets; here each sample is an anchor, with the mean over "
                "its positives in the batch, and all its negatives as Z.",
                UNMINED,
            ),
            presets={
                "pml": Preset(
                    arguments={"scale": 1.0, "denominator": "all"},
                    source="pytorch-metric-learning ProxyNCALoss: softmax over all proxies, softmax_scale=1",
                ),
            },
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="proxy_nca_pp",
            target="nearfar_proxy.proxy_nca_pp:ProxyNCAPlusPlus",
            summary="The probability of the own proxy among all, at a low temperature.",
            learning_rate=PROXY_RATE,
            family="proxy",
            paper=Paper(
                authors="Teh, DeVries, Taylor",
                title="ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis",
                year=2020,
                arxiv="2004.01113",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            distances=("*",),
            default_distance="core.squared_euclidean",
            deviations=(UNMINED,),
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="proxy_anchor",
            target="nearfar_proxy.proxy_anchor:ProxyAnchor",
            summary="Proxies as anchors: each draws the samples of its class, the hardest most, and pushes all others.",
            schedulable=("margin", "scale"),
            family="proxy",
            learning_rate=PROXY_RATE,
            paper=Paper(
                authors="Kim, Kim, Cho, Kwak",
                title="Proxy Anchor Loss for Deep Metric Learning",
                year=2020,
                arxiv="2003.13991",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            deviations=(
                "A miner's weights stand before the exponentials, so a sample it left out has no gradient; "
                "pytorch-metric-learning adds the weight less 1 to the exponent, which leaves it 1/e.",
                UNMINED,
            ),
            memory=1,
            synchronizations=1,
        ),
        LossSpec(
            name="soft_triple",
            target="nearfar_proxy.soft_triple:SoftTriple",
            summary="A softmax over classes with several centres each, which merge where one is enough.",
            schedulable=("tau",),
            family="proxy",
            learning_rate=PROXY_RATE,
            paper=Paper(
                authors="Qian, Shang, Sun, Hu, Li, Jin",
                title="SoftTriple Loss: Deep Metric Learning Without Triplet Sampling",
                year=2019,
                arxiv="1909.05235",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            deviations=(
                "The authors' code adds 1e-5 below the root, so that centres that are the same have a gradient; here "
                "they have none.",
                UNMINED,
            ),
            presets={
                "pml": Preset(
                    arguments={"tau": 0.0},
                    source="pytorch-metric-learning SoftTripleLoss: without what merges the centres",
                ),
            },
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="proxy_gml",
            target="nearfar_proxy.proxy_gml:ProxyGML",
            summary="Graph metric learning with proxies: a sample is classified by the few proxies nearest to it.",
            schedulable=("ratio", "factor", "scale"),
            family="proxy",
            learning_rate=PROXY_RATE,
            paper=Paper(
                authors="Zhu, Yang, Deng, Liu",
                title="Fewer is More: A Deep Graph Metric Learning Perspective Using Fewer Proxies",
                year=2020,
                arxiv="2010.13636",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            deviations=(
                "A ratio that leaves room for no proxy of another class is refused: every value would be 0.",
                "Classes with a proxy that is kept are in the denominator; the authors' code has those whose sum is "
                "not 0, and adds 1e-8.",
                UNMINED,
            ),
            presets={
                "few": Preset(
                    arguments={"proxies_per_class": 1, "scale": 20.0},
                    source="Zhu et al. 2020: one proxy for classes of few samples; the scale is that of their code",
                ),
            },
            example="proxies_per_class=2, ratio=0.5",
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="center",
            target="nearfar_proxy.center:Center",
            summary="Half the squared distance of each embedding to the running centre of its class.",
            schedulable=("alpha",),
            family="center",
            paper=Paper(
                authors="Wen, Zhang, Li, Qiao",
                title="A Discriminative Feature Learning Approach for Deep Face Recognition",
                year=2016,
                venue="ECCV",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            uses_norm=True,
            collapses="It only draws a class together; the loss it is added to keeps classes apart.",
            optimum=0.0,
            deviations=(
                "The paper's formula sums over the batch; here the mean is taken, as in the authors' Caffe layer. "
                "reducer=sum gives the sum.",
                "Centres start at zero; the paper does not say where they start.",
                "Three rules go by the name of α: this one, the paper's; a gradient step of size α, without the 1 + n, "
                "which is update='gradient' under SGD; and c ← α c + (1 − α) x, where α is the other way round.",
                "An embedding that is not finite moves no centre, so one bad batch does not spoil them for good.",
                UNMINED,
            ),
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="contrastive_center",
            target="nearfar_proxy.contrastive_center:ContrastiveCenter",
            summary="The squared distance to the own centre, over the sum of those to all others.",
            schedulable=("delta",),
            family="center",
            paper=Paper(
                authors="Qi, Su",
                title="Contrastive-center Loss for Deep Neural Networks",
                year=2017,
                arxiv="1707.07391",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            uses_norm=True,
            optimum=0.0,
            deviations=("The paper's formula sums over the batch; here the mean is taken.", UNMINED),
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="triplet_center",
            target="nearfar_proxy.triplet_center:TripletCenter",
            summary="The own centre must be nearer than the nearest other one, by a margin.",
            schedulable=("margin",),
            family="center",
            paper=Paper(
                authors="He, Zhou, Zhou, Bai, Bai",
                title="Triplet-Center Loss for Multi-View 3D Object Retrieval",
                year=2018,
                arxiv="1803.06189",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            uses_norm=True,
            deviations=("The paper's formula sums over the batch; here the mean is taken.", UNMINED),
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="island",
            target="nearfar_proxy.island:Island",
            summary="Center loss, and the cosines of all pairs of centres, which move away from each other.",
            schedulable=("factor", "alpha"),
            family="center",
            paper=Paper(
                authors="Cai, Meng, Khan, Li, O'Reilly, Tong",
                title="Island Loss for Learning Discriminative Features in Facial Expression Recognition",
                year=2017,
                arxiv="1710.03144",
            ),
            needs=NEEDS,
            accepts=ACCEPTS,
            uses_norm=True,
            deviations=(
                "The paper's formula sums over the batch and over the pairs of centres; here the mean over the samples "
                "and the mean over the centres are added.",
                "A centre at zero, where all start, has no direction: its cosines are 0.",
                UNMINED,
            ),
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="ring",
            target="nearfar_proxy.ring:Ring",
            summary="Half the squared difference of each embedding's length and a learned radius.",
            family="center",
            paper=Paper(
                authors="Zheng, Pal, Savvides",
                title="Ring Loss: Convex Feature Normalization for Face Recognition",
                year=2018,
                arxiv="1803.00130",
            ),
            accepts=ACCEPTS,
            deviations=("An element a miner did not select weighs 0, so with nothing selected the loss is 0.",),
            uses_norm=True,
            example="radius=2.0",
            memory=1,
            synchronizations=0,
            expected_failures={"clustering": "It looks at lengths only; it is added to a loss that looks at classes."},
        ),
        LossSpec(
            name="regular_face",
            target="nearfar_proxy.regular_face:RegularFace",
            summary="A loss with class weights, each of which also costs its cosine to the nearest other.",
            schedulable=("factor",),
            family="wrapper",
            paper=Paper(
                authors="Zhao, Xu, Cheng",
                title="RegularFace: Deep Face Recognition via Exclusive Regularization",
                year=2019,
                venue="CVPR",
            ),
            accepts=ACCEPTS,
            wraps=("margin.*", "proxy.proxy_*"),
            example="loss=proxy_nca(num_classes=6, embedding_size=8)",
            deviations=(UNSAID,),
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="center_invariant",
            target="nearfar_proxy.center_invariant:CenterInvariant",
            summary="A loss with class weights, which also cost what their squared lengths differ from the mean.",
            schedulable=("factor",),
            family="wrapper",
            paper=Paper(
                authors="Wu, Liu, Zhao, Wang, Yan",
                title="Deep Face Recognition with Center Invariant Loss",
                year=2017,
                venue="ACM Multimedia Thematic Workshops",
            ),
            accepts=ACCEPTS,
            wraps=("margin.*", "proxy.proxy_*"),
            example="loss=proxy_nca(num_classes=6, embedding_size=8)",
            deviations=(
                "The lengths of all classes' weights are compared; the paper takes those of the batch.",
                UNSAID,
            ),
            memory=1,
            synchronizations=0,
        ),
    ]
