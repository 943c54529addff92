"""How good an embedding is: exact nearest neighbours and the retrieval metrics made of them.

::

    from nearfar.evaluate import nearest, retrieval_metrics

    retrieval_metrics(embeddings, labels)  # {"recall@1": …, "recall@5": …, "r_precision": …, "map@r": …, …}
    similarities, indices = nearest(queries, gallery, k=10, metric="cosine")
"""

from nearfar.evaluate.retrieval import retrieval_metrics
from nearfar.evaluate.topk import nearest

__all__ = ["nearest", "retrieval_metrics"]
