import torch

from nearfar import EmbeddingLoss, MaterialTerms, Miner
from nearfar.nn import IndexSelection


class LogRatio(EmbeddingLoss):
    r"""A positive has to be nearer than a negative by a factor.

    .. math:: \ell_{apn} = [\,\log d_{ap} - \log d_{an} + m\,]_+

    Parameters
    ----------
    margin : float
        [0..inf] Logarithm of the factor.
    """

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        super().__init__(distance=distance, reducer=reducer)
        self.margin = margin

    def terms(self, batch):
        a, p, n = batch.triplets()
        log = self.distance(batch.embeddings, batch.reference).clamp_min(1e-6).log()
        values = (log[a, p] - log[a, n] + self.margin).relu()
        return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings))


class NearestImpostor(Miner):
    """Every positive pair with the anchor's nearest negative."""

    def choose(self, batch, distance, loss):
        far = torch.inf if not distance.is_inverted else -torch.inf
        matrix = distance(batch.embeddings, batch.reference).masked_fill(~batch.negative_mask(), far)
        nearest = distance.smallest_dist(matrix, dim=1).indices
        a, p = torch.where(batch.positive_mask() & batch.negative_mask().any(1, keepdim=True))
        return IndexSelection((a, p, nearest[a]))
