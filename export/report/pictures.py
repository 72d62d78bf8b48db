"""Pictures of the report: images with different decisions, masks worse than the float network's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.inspection.segmenter import class_map, regions
from export.acceptance.scoring import Network, Scorer
from export.report.document import FlippedDecision, GateAcceptance, SegmenterAcceptance
from workshop.report.pictures import Panel, jpeg_url, small, tinted

MOST = 24
"""Most pictures of each kind."""


@dataclass(frozen=True, slots=True)
class ImageCard:
    """Picture of one image; `lines` describe its result, one for each artifact."""

    name: str
    lines: tuple[str, ...]
    wide: bool
    panels: tuple[Panel, ...]


def flips(examiner: Scorer, verdicts: Sequence[GateAcceptance]) -> tuple[ImageCard, ...]:
    """Return the images that some artifact decides differently than float Keras, up to MOST.

    Images that the most artifacts decide differently come first, lost defects before others.
    """
    by_name: dict[str, list[tuple[GateAcceptance, FlippedDecision]]] = {}
    for verdict in verdicts:
        for flip in verdict.flips:
            by_name.setdefault(flip.name, []).append((verdict, flip))
    threshold = verdicts[0].threshold_logit
    order = sorted(by_name, key=lambda n: (-len(by_name[n]), not _lost(by_name[n][0][1]), n))
    at = {sample.name: index for index, sample in enumerate(examiner.data.samples)}
    cards = []
    for name in order[:MOST]:
        lines = tuple(_flip_line(verdict, flip, threshold) for verdict, flip in by_name[name])
        cards.append(_card(examiner, at[name], lines, {}))
    return tuple(cards)


def worst_masks(
    examiner: Scorer, verdicts: Sequence[SegmenterAcceptance], networks: Sequence[Network]
) -> tuple[ImageCard, ...]:
    """Return the image with the largest drop in Dice of each artifact.

    `networks` are those of `verdicts`, in the same order, float Keras first.
    """
    at = {sample.name: index for index, sample in enumerate(examiner.data.samples)}
    cards = []
    for verdict, network in list(zip(verdicts, networks, strict=True))[1:]:
        if (worst := verdict.worst) is None:
            continue
        line = f"{verdict.artifact}: Dice {worst.dice:.3f}, float Keras {worst.float_dice:.3f}"
        found = {"float Keras": networks[0], verdict.artifact: network}
        cards.append(_card(examiner, at[worst.name], (line,), found))
    return tuple(cards[:MOST])


def _card(
    examiner: Scorer, index: int, lines: tuple[str, ...], networks: Mapping[str, Network]
) -> ImageCard:
    data = examiner.data
    image = data.image(index)
    plain = small(image)
    classes = range(len(data.class_names))
    drawn = data.planes(index)
    panels = [Panel("image", jpeg_url(plain))]
    if drawn.any():
        panels.append(Panel("drawn", jpeg_url(tinted(plain, [drawn[:, :, k] for k in classes]))))
    for title, network in networks.items():
        found = _found(examiner, network, index)
        panels.append(Panel(title, jpeg_url(tinted(plain, [found == k + 1 for k in classes]))))
    lines_px, pixels = image.shape[:2]
    return ImageCard(data.samples[index].name, lines, pixels >= 2 * lines_px, tuple(panels))


def _found(examiner: Scorer, network: Network, index: int) -> NDArray[np.uint8]:
    """Return the class map of the regions, as on the line."""
    image = examiner.data.image(index)
    shape = (image.shape[0], image.shape[1])
    return class_map(regions(examiner.whole(network, image), shape, examiner.rule), shape)


def _lost(flip: FlippedDecision) -> bool:
    return flip.defective and flip.float_suspect


def _flip_line(verdict: GateAcceptance, flip: FlippedDecision, float_threshold: float) -> str:
    """Return text: "onnx-int8: a defect, passed as clean. Logit -4.810 at threshold ..."."""
    what = "a defect" if flip.defective else "defect-free"
    now = "passed as clean" if flip.float_suspect else "now suspect"
    return (
        f"{verdict.artifact}: {what}, {now}. Logit {flip.logit:+.3f} at threshold "
        f"{verdict.threshold_logit:+.3f}; float Keras {flip.float_logit:+.3f} at "
        f"{float_threshold:+.3f}"
    )
