"""Losses on pairs as one would write them plainly: the whole matrix, masks, autograd. A peer for the benchmarks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def cosines(x):
    x = F.normalize(x)
    return x @ x.T


def distances(x):
    x = F.normalize(x)
    return torch.cdist(x, x)


def masks(labels):
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool), ~same


def lse(values, mask):
    return values.masked_fill(~mask, -1e9).logsumexp(1)


def where_non_zero(costs, mask):
    costs = costs[mask]
    return costs.sum() / (costs > 0).sum().clamp_min(1)


def contrastive(x, y):
    d, (p, n) = distances(x), masks(y)
    return where_non_zero(torch.relu(d), p) + where_non_zero(torch.relu(1 - d), n)


def sup_con(x, y):
    s, (p, n) = cosines(x) / 0.1, masks(y)
    return -(((s - lse(s, p | n)[:, None]) * p).sum(1) / p.sum(1)).mean()


def info_nce(x, y):
    s, (p, n) = cosines(x) / 0.07, masks(y)
    return (lse(s, p | n) - lse(s, p)).mean()


def nt_xent(x, y):
    s, (p, n) = cosines(x) / 0.1, masks(y)
    return (torch.logaddexp(lse(s, n)[:, None], s) - s)[p].mean()


def decoupled_contrastive(x, y):
    s, (p, n) = cosines(x) / 0.1, masks(y)
    return (lse(s, n)[:, None] - s)[p].mean()


def decoupled_contrastive_weighted(x, y):
    s, (p, n) = cosines(x), masks(y)
    near, size = s[p], p.sum(1)
    weights = 2 - near.numel() * F.softmax(near / 0.5, 0)
    return (lse(s / 0.1, n).repeat_interleave(size) - weights * near / 0.1).mean()


class SigLIP:
    """It learns its scale and its bias."""

    def __init__(self):
        self.log_scale = torch.tensor(math.log(10.0), requires_grad=True)
        self.bias = torch.tensor(-10.0, requires_grad=True)

    def __call__(self, x, y):
        s, (p, n) = cosines(x), masks(y)
        z = p.to(s.dtype) - n.to(s.dtype)
        scale, bias = self.log_scale.to(s.dtype).exp(), self.bias.to(s.dtype)
        return -(F.logsigmoid(z * (scale * s + bias)) * z.abs()).sum() / len(x)


def n_pair(x, y):
    s, (p, n) = x @ x.T, masks(y)
    return F.softplus((lse(s, n)[:, None] - s)[p], threshold=40).mean() + 0.002 * x.square().sum(1).mean()


def n_pair_of_pairs(x, y, ref_emb, ref_labels):
    return F.cross_entropy(F.normalize(x) @ F.normalize(ref_emb).T, torch.arange(len(x)))


def multi_similarity(x, y):
    s, (p, n) = cosines(x), masks(y)
    return (F.softplus(lse(-2 * (s - 0.5), p)) / 2 + F.softplus(lse(50 * (s - 0.5), n), threshold=40) / 50).mean()


def circle(x, y):
    s, (p, n) = cosines(x), masks(y)
    near = -80 * torch.relu(1.4 - s.detach()) * (s - 0.6)
    far = 80 * torch.relu(s.detach() + 0.4) * (s - 0.4)
    return F.softplus(lse(near, p) + lse(far, n), threshold=40).mean()


def generalized_lifted(x, y):
    d, (p, n) = distances(x), masks(y)
    return torch.relu(lse(d, p) + lse(1 - d, n)).mean()


def lifted_structure(x, y):
    d, (p, n) = distances(x), masks(y)
    threat = lse(1 - d, n)
    return (torch.relu(d + torch.logaddexp(threat[:, None], threat))[p] ** 2).mean() / 2


def nca(x, y):
    d, (p, n) = distances(x) ** 2, masks(y)
    return (lse(-d, p | n) - lse(-d, p)).mean()


def ranked_list(x, y):
    d, (p, n) = distances(x), masks(y)
    near, far = torch.relu(d - 0.8) * p, torch.relu(1.2 - d) * n
    weights = torch.exp(10 * far.detach()) * (far > 0)
    tiny = torch.finfo(d.dtype).tiny
    near = near.sum(1) / (near > 0).sum(1).clamp_min(1)
    return (near + (weights * far).sum(1) / weights.sum(1).clamp_min(tiny)).mean() / 2


def tuplet_margin(x, y):
    s, (p, n) = cosines(x), masks(y)
    near = torch.cos(torch.acos(s[p].clamp(-1, 1)) - 0.1)
    return F.softplus(64 * (lse(64 * s, n) / 64).repeat_interleave(p.sum(1)) - 64 * near, threshold=40).mean()


def threshold_consistent_margin(x, y):
    s, (p, n) = cosines(x), masks(y)
    return where_non_zero(torch.relu(0.9 - s), p) + where_non_zero(torch.relu(s - 0.5), n)


def intra_pair_variance(x, y):
    s, (p, n) = cosines(x), masks(y)
    near, far = s[p], s[n]
    return (torch.relu(0.99 * near.mean() - near) ** 2).mean() + (torch.relu(far - 1.01 * far.mean()) ** 2).mean()


class MarginBeta:
    """It learns its boundary."""

    def __init__(self):
        self.beta = torch.tensor(1.2, requires_grad=True)

    def __call__(self, x, y):
        d, (p, n) = distances(x), masks(y)
        beta = self.beta.to(d.dtype)
        near, far = torch.relu(d - beta + 0.2)[p], torch.relu(beta + 0.2 - d)[n]
        return (near.sum() + far.sum()) / ((near > 0).sum() + (far > 0).sum())


def centroid_triplet(x, y):
    of_class = F.one_hot(y).to(x.dtype)
    sums, sizes = of_class.T @ x, of_class.sum(0)[:, None]
    mine = F.normalize((sums[y] - x) / (sizes[y] - 1))
    d = torch.cdist(F.normalize(x), F.normalize(sums / sizes)) ** 2
    nearest = d.masked_fill(of_class > 0, torch.inf).amin(1)
    return torch.relu((F.normalize(x) - mine).square().sum(1) - nearest + 0.3).mean()


def fast_ap(x, y):
    d, (p, n) = distances(x) ** 2, masks(y)
    shares = torch.relu(1 - (d[..., None] - torch.arange(11, dtype=d.dtype) * 0.4).abs() / 0.4)
    h_p, h_n = ((shares * mask[..., None]).sum(1) for mask in (p, n))
    H_p, H = h_p.cumsum(1), (h_p + h_n).cumsum(1)
    return (1 - (h_p * H_p / H.clamp_min(1e-12)).sum(1) / p.sum(1)).mean()


def graded_log_ratio(x, y):
    ratios = (torch.cdist(x, x) + 1e-6).log() - ((y[:, None] != y).to(x.dtype) + 1e-6).log()
    return 2 * ratios[~torch.eye(len(y), dtype=torch.bool)].view(len(y), -1).var(1).mean()


class DynamicSoftMargin:
    """It remembers what earlier calls have seen."""

    def __init__(self, bins=512, momentum=0.01):
        self.seen, self.momentum = torch.zeros(bins), momentum

    def __call__(self, x, y):
        d, (p, n) = distances(x), masks(y)
        nearest = d.masked_fill(~n, torch.inf).amin(1)
        apart = (d - torch.minimum(nearest[:, None], nearest))[p]
        place = ((apart.detach() + 2).clamp(0, 4) * ((len(self.seen) - 1) / 4)).to(self.seen)
        before = place.long()
        share = place - before
        seen = torch.zeros_like(self.seen).index_add(0, before, 1 - share)
        seen = seen.index_add(0, (before + 1).clamp_max(len(seen) - 1), share)
        self.seen = self.seen.lerp(seen / seen.sum(), self.momentum if self.seen.any() else 1.0)
        shares = self.seen.to(x.dtype).cumsum(0)
        return (shares[before] / shares[-1] * apart).mean()


DENSE = {
    "decoupled_contrastive(sigma=0.5)": decoupled_contrastive_weighted,
    "dynamic_soft_margin": DynamicSoftMargin(),
    "margin_beta": MarginBeta(),
    "siglip": SigLIP(),
    'contrastive(hinge="linear")': contrastive,
    "multi_similarity(base=0.5)": multi_similarity,
    "n_pair(l2_weight=0, distance=cosine)": n_pair_of_pairs,
    **{
        f.__name__: f
        for f in (
            *(sup_con, info_nce, nt_xent, decoupled_contrastive, n_pair, circle, generalized_lifted),
            *(lifted_structure, nca, ranked_list, tuplet_margin, threshold_consistent_margin, intra_pair_variance),
            *(fast_ap, centroid_triplet, graded_log_ratio),
        )
    },
}
