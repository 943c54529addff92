"""Mining as weighting: what a loss, with or without a miner, makes of each pair.

The gradient of any loss on embeddings is a sum over pairs, each with the weight ∂L/∂S of its similarity S (Wang et al.
2019). These weights are all that training sees of a loss::

    from nearfar.explain import pair_weights, responses

    pair_weights(nearfar.compose("multi_similarity"), embeddings, labels)  # (n, n)
    responses("triplet(miner=semihard)").negative  # {"self", "positives"}
"""

from nearfar.explain.anchor import Anchor
from nearfar.explain.figure import draw
from nearfar.explain.responses import Responses, curves, responses
from nearfar.explain.weights import pair_weights

__all__ = ["Anchor", "Responses", "curves", "draw", "pair_weights", "responses"]
