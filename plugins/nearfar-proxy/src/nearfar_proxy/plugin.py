"""Entry module of the plugin ``proxy``."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.hookspecs import hookimpl
from nearfar.spec import LossSpec, Paper, Preset
from nearfar_proxy.recipes import RECIPES

ACCEPTS = ("pairs", "triplets", "weights")
NEEDS = ("num_classes", "embedding_size")
UNMINED = (
    "An element a miner did not select weighs 0, so with nothing selected the loss is 0; pytorch-metric-learning "
    "then weighs every element by 1."
)


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
            family="proxy",
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
                UNMINED,
            ),
            presets={
                "pml": Preset(
                    arguments={"scale": 1.0, "denominator": "all"},
                    source="pytorch-metric-learning ProxyNCALoss: softmax over all proxies, softmax_scale=1",
                ),
                "proxy_nca_pp": Preset(
                    arguments={"scale": 9.0, "denominator": "all"},
                    source="Teh, DeVries, Taylor 2020, ProxyNCA++ (2004.01113): the loss, with a temperature of 1/9",
                ),
            },
            memory=1,
            synchronizations=0,
        ),
        LossSpec(
            name="center",
            target="nearfar_proxy.center:Center",
            summary="Half the squared distance of each embedding to the running centre of its class.",
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
                "An embedding that is not finite moves no centre, so one bad batch does not spoil them for good.",
                UNMINED,
            ),
            memory=2,
            synchronizations=0,
        ),
    ]
