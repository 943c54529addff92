"""Identification: who is it, among the identities of a gallery? Ranks, and for strangers detection rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate.roc import SUPPORT
from nearfar.evaluate.topk import Gallery, check_embeddings, check_fit, check_integers


@dataclass(frozen=True, slots=True)
class Detection:
    """Open-set identification at one threshold.

    Attributes
    ----------
    wanted : float
        The false-alarm rate asked for.
    threshold : float
        Cosines at least as large raise an alarm; infinity where none may.
    far : float
        Strangers that raise one, as a share of all strangers; at most ``wanted``.
    rate : float
        Probes of the gallery's identities that raise one and have their identity at rank 1.
    """

    wanted: float
    threshold: float
    far: float
    rate: float


@dataclass(frozen=True, slots=True)
class Identification:
    """What :func:`identification_metrics` finds.

    Attributes
    ----------
    cmc : dict
        By k, the share of probes whose identity is among the k most similar: the cumulative match characteristic.
    detections : tuple of Detection
        At each false-alarm rate.
    refused : dict
        Rates that too few strangers support, with the reason.
    probes, strangers : int
        Probes whose identity is in the gallery, and whose is not.
    identities, distractors : int
        In the gallery: identities that a probe has, and items of identities that none has.
    """

    cmc: dict[int, float]
    detections: tuple[Detection, ...]
    refused: dict[float, str]
    probes: int
    strangers: int
    identities: int
    distractors: int


def identification_metrics(
    probes: Tensor,
    labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    ks: Sequence[int] = (1, 5, 10),
    fars: Sequence[float] = (0.1, 0.01),
    chunk: int | None = None,
) -> Identification:
    """How often the most similar identities of a gallery hold a probe's own: closed set and open set.

    An identity is as similar as the most similar of its items, by cosine. A rank counts the identities that are more
    similar than the own one; those as similar count as well, so that embeddings that are all alike find nobody.
    Gallery items whose identity no probe has are distractors: MegaFace's million are given so. Probes whose identity
    the gallery lacks are strangers: they have no rank, and their most similar items set the threshold of the open
    set, DIR@FAR.

    Parameters
    ----------
    probes : Tensor
        (n, d) finite.
    labels : Tensor
        (n,) integers: identities.
    gallery, gallery_labels : Tensor
        (m, d) and (m,).
    ks : sequence of int
        [1..inf] Ranks.
    fars : sequence of float
        (0..1] False-alarm rates, where there are strangers; one that fewer than ten support is refused.
    chunk : int, optional
        The number of similarities held at once, as in :func:`~nearfar.evaluate.nearest`.

    Returns
    -------
    Identification

    Raises
    ------
    InputError
        A shape, dtype or range does not fit, or no probe's identity is in the gallery.

    References
    ----------
    Phillips, Grother, Micheals (2011). Evaluation Methods in Face Recognition. Handbook of Face Recognition.
    """
    check_embeddings("probes", probes)
    check_integers("labels", labels, len(probes))
    check_embeddings("gallery", gallery)
    check_integers("gallery_labels", gallery_labels, len(gallery))
    check_fit(probes, gallery)
    if not ks or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in ks):
        raise InputError(f"ks must be one or more integers of at least 1, not {ks!r}")
    if wrong := [far for far in fars if not 0 < far <= 1]:
        raise InputError(f"a false-alarm rate lies above 0 and is at most 1; got {wrong[0]}")
    labels, gallery_labels = labels.to(gallery.device), gallery_labels.to(gallery.device)
    known = torch.isin(labels, gallery_labels)
    if not bool(known.any()):
        raise InputError(f"none of the {len(probes)} probes has its identity in the gallery")
    first, rank = _searched(probes, labels, gallery, gallery_labels, chunk)
    cmc = {k: float((rank[known] <= k).double().mean()) for k in ks}
    alarms = first[~known].sort(descending=True).values
    detections, refused = [], {}
    for far in fars if len(alarms) else ():
        if far * len(alarms) < SUPPORT - 1e-9:
            refused[far] = (
                f"a false-alarm rate of {far:g} of {len(alarms)} strangers rests on {far * len(alarms):.3g} of them: "
                f"it takes {SUPPORT}"
            )
            continue
        threshold = _threshold(alarms, far)
        found = (rank[known] == 1) & (first[known] >= threshold)
        reached = float((alarms >= threshold).double().mean())
        detections.append(Detection(far, threshold, reached, float(found.double().mean())))
    own = torch.isin(gallery_labels, labels)
    return Identification(
        cmc,
        tuple(detections),
        refused,
        int(known.sum()),
        int((~known).sum()),
        len(torch.unique(gallery_labels[own])),
        int((~own).sum()),
    )


def _threshold(alarms: Tensor, far: float) -> float:
    """The least threshold that at most this share of falling similarities reaches."""
    allowed = int(far * len(alarms) * (1 + 1e-12))
    if allowed == len(alarms):
        return float(alarms[-1])
    above = alarms[alarms > alarms[allowed]]
    return float(above[-1]) if len(above) else float("inf")


@torch.no_grad()
def _searched(
    probes: Tensor, labels: Tensor, gallery: Tensor, gallery_labels: Tensor, chunk: int | None
) -> tuple[Tensor, Tensor]:
    """The similarity of the most similar item of each probe, (n,), and the rank of its identity, (n,)."""
    ids, own = torch.unique(gallery_labels, return_inverse=True)
    index = Gallery(gallery.to(torch.promote_types(probes.dtype, gallery.dtype)), metric="cosine", chunk=chunk)
    place = torch.searchsorted(ids, labels.contiguous()).clamp_max(len(ids) - 1)
    first = torch.empty(len(probes), dtype=index.dtype, device=probes.device)
    rank = torch.empty(len(probes), dtype=torch.int64, device=probes.device)
    rows = max(1, index.chunk // len(gallery))
    for start in range(0, len(probes), rows):
        tile = slice(start, start + rows)
        scores = index.similarities(probes[tile])
        best = scores.new_full((len(scores), len(ids)), -torch.inf)
        best.scatter_reduce_(1, own.expand_as(scores), scores, "amax")
        first[tile] = best.amax(1)
        rank[tile] = (best >= best.gather(1, place[tile, None])).sum(1)
    return first, rank
