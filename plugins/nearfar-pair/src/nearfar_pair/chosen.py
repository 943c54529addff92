"""Which pairs of a batch were selected, and the distances that they were selected by."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from nearfar.nn.batch import Batch
from nearfar.nn.miners import same_distance
from nearfar.nn.selection import IndexSelection
from nearfar_pair.few_rows import slices_of
from nearfar_pair.mask_sides import sides_of
from nearfar_pair.rule_distance import RuleDistance
from nearfar_pair.sides import PairRule, Sides
from nearfar_pair.triplet_pairs import Rule, TripletPairs, Triplets, selects_all

__all__ = ["by_label", "chosen_sides", "is_alike", "measured", "rule_of"]


def rule_of(batch: Batch) -> PairRule | None:
    """The rule that a miner selected by, as one on pairs; None where pairs or triplets were selected one by one."""
    given = batch.selection
    if given is None or isinstance(given, PairRule | IndexSelection):
        return given if isinstance(given, PairRule) else None
    return TripletPairs(given) if isinstance(given, Triplets) else None


def chosen_sides(batch: Batch, distance: Any, *, narrow: bool = False) -> Sides:
    """The positives and negatives that were selected, or all by label, for a loss on these distances."""
    rule = rule_of(batch)
    if rule is None or selects_all(batch.selection) or is_alike(rule, batch, distance):
        return sides_of(batch, rule, narrow=narrow)
    return sides_of(batch, rule, narrow=narrow, measured=RuleDistance(rule.batch, rule.distance))


def is_alike(rule: Rule, batch: Batch, distance: Any) -> bool:
    """Whether these distances of a batch are the ones that a rule goes by."""
    if rule.batch.is_self != batch.is_self or not same_distance(rule.distance, distance):
        return False
    return all(a is b or torch.equal(a, b) for a, b in zip(rule.batch.given, batch.given, strict=True))


def measured(rule: PairRule | Triplets) -> RuleDistance:
    """The distances that a rule goes by as its miner had them, whichever anchors are asked for at a time."""
    batch = rule.batch
    anchors = slices_of(len(batch.embeddings), len(batch.reference), batch.embeddings.device)
    return RuleDistance(batch, rule.distance, anchors)


def by_label(batch: Batch, told: Batch) -> Batch:
    """A batch without its selection, whose classes are those of another, the one that a rule is about."""
    return dataclasses.replace(
        batch,
        selection=None,
        labels=told.labels,
        reference_labels=told.reference_labels,
        relation=told.relation,
    )
