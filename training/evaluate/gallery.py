"""Gallery of the evaluation report: selection of images and their panels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.evaluate.evaluate import ImageView
from workshop.gate_metrics import logit, probability
from workshop.report.pictures import Panel, jpeg_url, small, tinted
from workshop.segmentation_metrics import ImageOutcome, ImageRecord, image_dice


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """Image chosen for the gallery, with its caption."""

    record: ImageRecord
    caption: str


@dataclass(frozen=True, slots=True)
class GalleryGroup:
    """Group of gallery images under one title, with an explanation."""

    title: str
    text: str
    picks: tuple[GalleryImage, ...]


@dataclass(frozen=True, slots=True)
class GalleryEntry:
    """Rendered gallery image; `wide` puts its panels below each other."""

    name: str
    caption: str
    wide: bool
    panels: tuple[Panel, ...]


def choose(
    records: Sequence[ImageRecord], threshold: float | None, most: int
) -> tuple[GalleryGroup, ...]:
    """Choose the best, worst and missed images and the false alerts.

    Args:
        records: Records of all evaluated images.
        threshold: Lowest threshold of the report, a probability; None without a gate.
        most: Largest number of images in a group.

    Returns:
        Four groups, which may be empty.
    """
    shown = [(r, _result(r, threshold), _passed(r, threshold)) for r in records]
    dices = sorted(
        (
            (value, r)
            for r, one, _ in shown
            if r.defective and one and one.regions and (value := image_dice(one)) is not None
        ),
        key=lambda pair: (-pair[0], pair[1].name),
    )
    # So that no image is among both the best and the worst.
    half = min(most, len(dices) // 2)
    best, worst = dices[: len(dices) - half][:most], dices[::-1][:half]
    missed = [r for r, one, on in shown if r.defective and not (one.regions if one else on)]
    alarms = [r for r, one, on in shown if not r.defective and (one.regions if one else on)]
    missed.sort(key=lambda r: (r.logit or 0, r.name))
    alarms.sort(key=lambda r: (-(r.logit or 0), r.name))

    def caption(record: ImageRecord) -> str:
        on = _passed(record, threshold)
        return _score(record) + ("" if on else "; the gate stopped it")

    return (
        GalleryGroup("Best", "Alerted images with the highest Dice.", _with_dice(best)),
        GalleryGroup("Worst", "Alerted images with the lowest Dice.", _with_dice(worst)),
        GalleryGroup(
            "Missed",
            f"Defective images without an alert: {len(missed)}. Lowest score first.",
            tuple(GalleryImage(r, caption(r)) for r in missed[:most]),
        ),
        GalleryGroup(
            "False alerts",
            f"Clean images with an alert: {len(alarms)}. Highest score first.",
            tuple(GalleryImage(r, caption(r)) for r in alarms[:most]),
        ),
    )


def entry(pick: GalleryImage, view: ImageView, names: Sequence[str]) -> GalleryEntry:
    """Render one image: itself, with its masks, and with the prediction if there is one.

    Args:
        pick: The image and its caption.
        view: Pixels, masks and prediction.
        names: Names of the defect classes, 1 first.

    Returns:
        The panels as JPEG data URLs.
    """
    plain = small(view.image)
    panels = [Panel("image", jpeg_url(plain))]
    masks = [view.drawn[:, :, k] for k in range(len(names))]
    panels.append(Panel("drawn", jpeg_url(tinted(plain, masks))))
    if view.found is not None:
        masks = [view.found == k for k in range(1, len(names) + 1)]
        panels.append(Panel("predicted", jpeg_url(tinted(plain, masks))))
    lines, pixels = view.image.shape[:2]
    return GalleryEntry(pick.record.name, pick.caption, pixels >= 2 * lines, tuple(panels))


def _result(record: ImageRecord, threshold: float | None) -> ImageOutcome | None:
    return record.regions if threshold is None or not record.line else record.line[0]


def _passed(record: ImageRecord, threshold: float | None) -> bool:
    if threshold is None or record.logit is None:
        return True
    return record.logit >= logit(threshold)


def _score(record: ImageRecord) -> str:
    return "" if record.logit is None else f"gate {probability(record.logit):.3f}"


def _with_dice(pairs: Iterable[tuple[float, ImageRecord]]) -> tuple[GalleryImage, ...]:
    return tuple(
        GalleryImage(r, ", ".join(part for part in (f"Dice {value:.3f}", _score(r)) if part))
        for value, r in pairs
    )
