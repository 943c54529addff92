"""The criteria of detectors, as recipes."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.spec import Paper

__all__ = ["RECIPES"]

NORMALIZERS = "Give the number of positive anchors as logit_normalizer and as box_normalizer."

RECIPES = (
    RecipeSpec(
        name="dense_detector",
        recipe="focal + 2.0 * ciou",
        summary="A detector that scores every anchor and regresses the boxes of those that have a target.",
        paper=Paper(
            authors="Zhang, Chi, Yao, Lei, Li",
            title="Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample "
            "Selection",
            year=2020,
            arxiv="1912.02424",
        ),
        source="the weights are those of mmdet's ATSS, whose box loss is giou; ciou takes its place here",
        notes=(
            "logits and targets are of all anchors (n, classes), pred_boxes and target_boxes of the positive ones.",
            NORMALIZERS,
        ),
    ),
    RecipeSpec(
        name="matched_detector",
        recipe="focal(miner=atss) + 2.0 * giou(miner=atss)",
        summary="A detector that is called with every prediction and every object: what stands for what is found out.",
        paper=Paper(
            authors="Zhang, Chi, Yao, Lei, Li",
            title="Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample "
            "Selection",
            year=2020,
            arxiv="1912.02424",
        ),
        source="the weights are those of mmdet's ATSS, which has a term on centerness as well",
        notes=(
            "logits (n, classes) and pred_boxes (n, 4) are of all predictions, targets (m,) the classes of the objects "
            "and target_boxes (m, 4) their boxes; give anchors (n, 4) and levels (n,) besides.",
            "Both terms share one matcher, which runs once a call, and are divided by the number of positives.",
            "For a batch of images give pred_groups and target_groups. max_iou, task_aligned and simota match as well.",
        ),
    ),
    RecipeSpec(
        name="generalized_focal",
        recipe="quality_focal + 2.0 * giou + 0.25 * distribution_focal",
        summary="A detector whose scores are qualities and whose boxes are distributions over distances.",
        paper=Paper(
            authors="Li, Wang, Wu, Chen, Hu, Li, Tang, Yang",
            title="Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object "
            "Detection",
            year=2020,
            arxiv="2006.04388",
        ),
        source="the weights are those of mmdet's GFL, which also weighs boxes by their score: box_weights",
        notes=("targets are the IoU of each positive anchor's box, in the column of its class.", NORMALIZERS),
    ),
    RecipeSpec(
        name="set_prediction",
        recipe="cross_entropy + 5.0 * l1 + 2.0 * giou(box_format='cxcywh')",
        summary="A detector that predicts a set: classes of all queries, and boxes of those that are matched.",
        paper=Paper(
            authors="Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko",
            title="End-to-End Object Detection with Transformers",
            year=2020,
            arxiv="2005.12872",
        ),
        source="the weights are the paper's, appendix A.4",
        notes=(
            "Boxes are cxcywh in 0..1; give their number in the batch as box_normalizer.",
            "The authors weigh queries without a target by 0.1: logit_weights, with their sum as logit_normalizer.",
        ),
    ),
)
