"""How good an embedding is: exact nearest neighbours, and the metrics of retrieval, verification and identification.

::

    from nearfar.evaluate import nearest, retrieval_metrics, verification_metrics

    retrieval_metrics(embeddings, labels)  # {"recall@1": …, "recall@5": …, "r_precision": …, "map@r": …, …}
    similarities, indices = nearest(queries, gallery, k=10, metric="cosine")
    verification_metrics(similarities, same, folds=10).to_dict()  # {"auc": …, "eer": …, "tar@0.001": …, …}
"""

from nearfar.evaluate.clusters import clustering_metrics
from nearfar.evaluate.folds import FoldAccuracy, fold_accuracy
from nearfar.evaluate.identification import Detection, Identification, identification_metrics
from nearfar.evaluate.pairs import all_pairs, pair_similarities
from nearfar.evaluate.ranking import ranking_metrics
from nearfar.evaluate.rerank import KReciprocal, expand_queries, k_reciprocal
from nearfar.evaluate.retrieval import retrieval_metrics
from nearfar.evaluate.roc import OperatingPoint, Roc, roc
from nearfar.evaluate.templates import template_features
from nearfar.evaluate.topk import nearest
from nearfar.evaluate.verification import Verification, verification_metrics

__all__ = [
    "Detection",
    "FoldAccuracy",
    "Identification",
    "KReciprocal",
    "OperatingPoint",
    "Roc",
    "Verification",
    "all_pairs",
    "clustering_metrics",
    "expand_queries",
    "fold_accuracy",
    "identification_metrics",
    "k_reciprocal",
    "nearest",
    "pair_similarities",
    "ranking_metrics",
    "retrieval_metrics",
    "roc",
    "template_features",
    "verification_metrics",
]
