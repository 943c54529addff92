"""Sound parts of every kind, and what finds the laws that a part breaks.

A broken part is a sound one with one thing wrong: the law that is about that thing finds it, and no other law
has anything to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nearfar import EmbeddingLoss, Loss, MaterialTerms, Miner, Reducer
from nearfar.discovery import Selector, discover
from nearfar.errors import InputError
from nearfar.nn import ElementMiner, IndexSelection, Matcher, Matches
from nearfar.nn.arguments import non_negative
from nearfar.nn.distances import Distance
from nearfar.nn.terms import element_terms
from nearfar.registry import Registry
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec, PartSpec, ReducerSpec
from nearfar.testing.check import Check
from nearfar.testing.law import LAWS
from nearfar.testing.subject import Subject


class SoundLoss(EmbeddingLoss):
    r"""Triplet loss with a hinge.

    .. math:: [d_{ap} - d_{an} + m]_+

    Parameters
    ----------
    margin : float
        [0..inf] How much nearer a positive has to be.
    distance, reducer
        As in :class:`nearfar.EmbeddingLoss`.
    """

    def __init__(self, margin: float = 0.5, *, distance: Any = None, reducer: Any = None) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = non_negative("margin", margin)

    def terms(self, batch: Any) -> Any:
        a, p, n = batch.triplets()
        d = self.distance(batch.embeddings, batch.reference)
        sign = -1 if self.distance.is_inverted else 1
        values = (sign * (d[a, p] - d[a, n]) + self.margin).relu()
        return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)


SOUND_LOSS: Mapping[str, Any] = {
    "name": "sound",
    "target": "somewhere:Else",
    "summary": "Triplet loss with a hinge.",
    "accepts": ("pairs", "triplets"),
    "emits": ("triplet",),
    "reference": True,
    "distances": ("*",),
    "default_distance": "core.euclidean",
    "memory": 3,
}


class SoundBoxLoss(Loss):
    r"""Mean absolute difference of the coordinates of boxes.

    .. math:: \tfrac14 \sum_k |b_k - b^*_k|
    """

    def terms(self, *inputs: Any) -> Any:
        prediction, target = inputs
        if prediction.shape != target.shape:
            raise InputError(f"pred_boxes {tuple(prediction.shape)} and target_boxes {tuple(target.shape)} differ")
        return element_terms((prediction - target).abs().mean(1))


SOUND_BOX_LOSS: Mapping[str, Any] = {
    "name": "sound_boxes",
    "target": "somewhere:Else",
    "summary": "Mean absolute difference of the coordinates of boxes.",
    "inputs": ("pred_boxes", "target_boxes"),
    "invariances": ("translation", "flip"),
    "separates": True,
    "memory": 1,
}


class SoundMiner(Miner):
    """Every positive pair with the anchor's nearest negative."""

    def choose(self, batch: Any, distance: Any, loss: Any) -> Any:
        far = -torch.inf if distance.is_inverted else torch.inf
        matrix = distance(batch.embeddings, batch.reference).masked_fill(~batch.negative_mask(), far)
        a, p = torch.where(batch.positive_mask() & batch.negative_mask().any(1, keepdim=True))
        if not len(a):
            return IndexSelection((a, p, p))
        return IndexSelection((a, p, distance.smallest_dist(matrix, dim=1).indices[a]))


SOUND_MINER: Mapping[str, Any] = {
    "name": "sound",
    "target": "somewhere:Else",
    "summary": "Every positive pair with the anchor's nearest negative.",
    "produces": "triplets",
    "distances": ("*",),
}


class SoundMatcher(Matcher):
    """Each prediction with the target that covers its first corner, the smallest of them, group by group."""

    inputs = ("pred_boxes", "target_boxes")
    optional_inputs = ("pred_groups", "target_groups")

    def match(self, *inputs: Any, **options: Any) -> Matches:
        if len(inputs) < 2 or any(boxes.ndim != 2 or boxes.shape[1] != 4 for boxes in inputs):
            raise InputError("pred_boxes and target_boxes are (n, 4) and (m, 4)")
        pred, target = (boxes.detach() for boxes in inputs)
        corner = pred[:, None, :2]
        covers = ((target[:, :2] <= corner) & (corner <= target[:, 2:])).all(2)
        if "pred_groups" in options:
            covers &= options["pred_groups"][:, None] == options["target_groups"]
        area = (target[:, 2:] - target[:, :2]).prod(1)
        found = covers.any(1).nonzero()[:, 0]
        smallest = torch.where(covers, area, torch.inf)[found]
        own = smallest.argmin(1) if len(target) else found
        return Matches(found, own, found[:0], len(pred), torch.ones(len(found), device=pred.device))


SOUND_MATCHER: Mapping[str, Any] = {
    "name": "sound",
    "target": "somewhere:Else",
    "summary": "Each prediction with the target that covers its first corner.",
    "produces": "matches",
    "inputs": SoundMatcher.inputs,
    "optional_inputs": SoundMatcher.optional_inputs,
    "reference": False,
}


class SoundElementMiner(ElementMiner):
    """Every value above the mean of its group."""

    def keep(self, named: Any) -> Any:
        return {name: self.above(terms) for name, terms in named.items()}

    def above(self, terms: Any) -> Any:
        anchors, values = terms.indices[0], terms.values
        groups = torch.zeros_like(anchors) if terms.groups is None else terms.groups[anchors]
        same = groups[:, None] == groups
        return values > (same * values).sum(1) / same.sum(1)


SOUND_ELEMENT_MINER: Mapping[str, Any] = {
    "name": "sound",
    "target": "somewhere:Else",
    "summary": "Every value above the mean of its group.",
    "produces": "elements",
    "inputs": ("terms",),
    "reference": False,
}


class SoundReducer(Reducer):
    """The mean of the values."""

    def reduce(self, terms: Any) -> Any:
        return terms.sum() / terms.count().clamp_min(1)


SOUND_REDUCER: Mapping[str, Any] = {
    "name": "sound",
    "target": "somewhere:Else",
    "summary": "The mean of the values.",
}


class SoundDistance(Distance):
    """The sum of the absolute differences, of embeddings as they are."""

    def __init__(self) -> None:
        super().__init__(normalize=False)

    def matrix(self, query: Any, reference: Any) -> Any:
        return (query[:, None] - reference).abs().sum(-1)

    def pairwise(self, query: Any, reference: Any) -> Any:
        return (query - reference).abs().sum(-1)


SOUND_DISTANCE: Mapping[str, Any] = {
    "name": "sound",
    "target": "somewhere:Else",
    "summary": "The sum of the absolute differences.",
    "metric": True,
}

SPECS: Mapping[str, type[PartSpec]] = {
    "loss": LossSpec,
    "miner": MinerSpec,
    "reducer": ReducerSpec,
    "distance": DistanceSpec,
}


def broken_laws(kind: str, target: Any, spec: Mapping[str, Any], *, only: str = "", **changed: Any) -> dict[str, str]:
    """Law → what it has to say, of every law that a class with such a spec does not keep; of ``only`` one, if named."""
    registry = Registry(discover(selector=Selector(allow=frozenset({"core", "pml"}))))
    entry = registry.register(SPECS[kind](**{**spec, **changed}), target)
    subject = Subject(entry, registry)
    found: dict[str, str] = {}
    for law in LAWS.values():
        if law.is_about(subject) and only in ("", law.name):
            for case in law.cases(subject) if law.cases else ("",):
                result = Check(subject, law, case).run()
                if result.status == "failed":
                    found.setdefault(law.name, result.reason)
    return found
