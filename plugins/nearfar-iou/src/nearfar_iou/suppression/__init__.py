"""Non-maximum suppression of boxes on any similarity, class by class.

These are functions rather than parts of the registry: they are used on what a model detects, not in a criterion.
All take boxes (n, 4), ``xyxy`` unless their similarity says otherwise, and scores (n,); none has a gradient.
"""

from nearfar_iou.suppression.cluster import cluster_nms
from nearfar_iou.suppression.greedy import diou_nms, nms
from nearfar_iou.suppression.matrix import matrix_nms
from nearfar_iou.suppression.soft import soft_nms
from nearfar_iou.suppression.weighted import weighted_nms

__all__ = ["cluster_nms", "diou_nms", "matrix_nms", "nms", "soft_nms", "weighted_nms"]
