"""Losses that multiply an angle, and their binary successor."""

from __future__ import annotations

from nearfar.spec import Paper, Preset
from nearfar_margin.specs.shared import CLAMPED, UNMINED, margin_loss

__all__ = ["SPECS"]

_GRADIENTS = (
    "The gradient is that of the formula; the authors' Caffe layer scales the gradients of embeddings and of class "
    "vectors to a length of their own."
)

_ANNEALED = (
    "it is a number of a schedule already, that of λ = max(lambda_min, lambda_base · (1 + lambda_gamma · "
    "step)^−lambda_power)"
)
#: Why nothing of an annealed margin moves in another way.
_UNSCHEDULABLE = {
    "margin": "it is the whole number that the angle is multiplied with; what brings it in with the steps is λ, which "
    "lambda_base, lambda_gamma, lambda_power and lambda_min tell how to fall",
    **dict.fromkeys(("lambda_base", "lambda_gamma", "lambda_power", "lambda_min"), _ANNEALED),
}
#: What may move of SphereFace2, whose bias was made for where it begins.
_MOVING = ("margin", "scale", "balance", "sharpness")
_BIAS = "The bias starts where the loss is least with what it was made with, and is learned from there on."

SPECS = (
    margin_loss(
        name="l_softmax",
        target="nearfar_margin.l_softmax:LSoftmax",
        summary="Multiplicative angular margin on inner products: the target's angle counts m times.",
        paper=Paper(
            authors="Liu, Wen, Yu, Yang",
            title="Large-Margin Softmax Loss for Convolutional Neural Networks",
            year=2016,
            arxiv="1612.02295",
        ),
        aliases=("large_margin_softmax",),
        uses_norm=True,
        unschedulable=_UNSCHEDULABLE,
        deviations=(UNMINED,),
        presets={
            "pml": Preset(
                arguments={"margin": 4, "lambda_base": 0.0},
                source="pytorch-metric-learning LargeMarginSoftmaxLoss: m = 4 from the first step on, no annealing",
            ),
            "mnist": Preset(
                arguments={"margin": 4, "lambda_base": 1000.0, "lambda_gamma": 2.5e-5, "lambda_power": 35.0},
                source="the authors' Caffe example on MNIST",
            ),
        },
    ),
    margin_loss(
        name="sphereface",
        target="nearfar_margin.sphereface:SphereFace",
        summary="Multiplicative angular margin on unit class vectors: the target's angle counts m times.",
        paper=Paper(
            authors="Liu, Wen, Yu, Li, Raj, Song",
            title="SphereFace: Deep Hypersphere Embedding for Face Recognition",
            year=2017,
            arxiv="1704.08063",
        ),
        aliases=("a_softmax",),
        uses_norm=True,
        unschedulable=_UNSCHEDULABLE,
        deviations=(
            _GRADIENTS,
            "The plain cosine is mixed in with a weight λ of at least 5, as in the authors' code; the formula of the "
            "paper is preset='paper'.",
            UNMINED,
        ),
        expected_failures={
            "arguments_matter[lambda_min]": "λ starts at 1000 and is above where it stops for some 1,660 steps.",
        },
        presets={
            "authors": Preset(
                arguments={
                    "margin": 4,
                    "lambda_base": 1000.0,
                    "lambda_gamma": 0.12,
                    "lambda_power": 1.0,
                    "lambda_min": 5.0,
                },
                source="the authors' sphereface_model.prototxt",
            ),
            "clcarwin": Preset(
                arguments={
                    "margin": 4,
                    "lambda_base": 1500.0,
                    "lambda_gamma": 0.1,
                    "lambda_power": 1.0,
                    "lambda_min": 5.0,
                },
                source="clcarwin/sphereface_pytorch: max(5, 1500/(1 + 0.1·it))",
            ),
            "paper": Preset(
                arguments={"margin": 4, "lambda_base": 0.0, "lambda_min": 0.0},
                source="Liu et al. 2017 (1704.08063), equation 7: no annealing",
            ),
        },
    ),
    margin_loss(
        name="sphereface_r",
        target="nearfar_margin.sphereface_r:SphereFaceR",
        summary="Multiplicative angular margin, revived: on the target's angle (v1) or on all others (v2).",
        schedulable=("margin", "scale"),
        paper=Paper(
            authors="Liu, Wen, Raj, Singh, Weller",
            title="SphereFace Revived: Unifying Hyperspherical Face Recognition",
            year=2022,
            arxiv="2109.05565",
        ),
        deviations=(
            "The authors' code multiplies the loss by 50 and divides it by the scale: give the term that weight.",
            "Soft feature normalisation, which adds a penalty on |‖x‖ − s|, is not offered; hard and none are.",
            CLAMPED,
            UNMINED,
        ),
        detached="gradient='detached', the paper's characteristic gradient detachment: the margins change the values "
        "alone, and the gradient is that of the cosines.",
        presets={
            "v1_hfn": Preset(
                arguments={"version": "v1", "scale": 30.0, "margin": 1.5},
                source="OpenSphere, SphereFace-R v1 with hard feature normalisation: s = 30, m = 1.5",
            ),
            "v2_hfn": Preset(
                arguments={"version": "v2", "scale": 30.0, "margin": 1.4},
                source="OpenSphere, SphereFace-R v2 with hard feature normalisation: s = 30, m = 1.4",
            ),
            "v1_nfn": Preset(
                arguments={"version": "v1", "scale": "norm", "margin": 1.5},
                source="Liu et al. 2022 (2109.05565): v1 without feature normalisation",
            ),
        },
    ),
    margin_loss(
        name="sphereface2",
        target="nearfar_margin.sphereface2:SphereFace2",
        summary="A binary classifier for each class: each pair of sample and class is right or wrong.",
        paper=Paper(
            authors="Wen, Liu, Weller, Raj, Singh",
            title="SphereFace2: Binary Classification is All You Need for Deep Face Recognition",
            year=2022,
            arxiv="2108.01513",
        ),
        deviations=(
            "The authors' code multiplies the loss by 50: give the term that weight.",
            "Of the paper's forms SphereFace2-C, with an additive cosine margin, is offered.",
            UNMINED,
        ),
        schedulable=_MOVING,
        expected_failures={f"schedulable[{name}]": _BIAS for name in _MOVING},
        detached="gradient='detached', characteristic gradient detachment: the similarity g changes the values alone, "
        "and the gradient is that of the cosines.",
        presets={
            "casia": Preset(
                arguments={"balance": 0.7, "scale": 40.0, "margin": 0.4, "sharpness": 3.0},
                source="OpenSphere, class SphereFace2: its defaults",
            ),
            "ms1m": Preset(
                arguments={"balance": 0.8, "scale": 64.0, "margin": 0.5, "sharpness": 3.0},
                source="OpenSphere, the configuration for MS1M",
            ),
        },
    ),
)
