"""Evaluation of trained models on a data set, one image at a time.

Only counts and scores of an image stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.frame import ClassMap, Image
from edge_agent.inspection.segmenter import class_map
from training.errors import RunError
from training.evaluate.evaluation import Evaluation, Images, Model, Part, Problem, evaluation
from training.evaluate.predict import TrainedNetwork, TrainedStages
from workshop import splits
from workshop.datasets.base import DataSet, Planes
from workshop.errors import WorkshopError
from workshop.gate_metrics import logit
from workshop.progress import each
from workshop.segmentation_metrics import Components, ImageOutcome, ImageRecord, outcome


@dataclass(frozen=True, slots=True, eq=False)
class UnseenImages:
    """Selection of images: `pick` holds the indices of those to evaluate.

    `seen` are those of `pick` that a model used in training or validation. `left_out` counts the
    images excluded for that reason, and `problems` lists those that cannot be read.
    """

    pick: tuple[int, ...]
    seen: frozenset[int]
    left_out: int
    problems: tuple[Problem, ...]


def choose(
    dataset: DataSet, part: Part, networks: Sequence[TrainedNetwork], split_file: Path | None
) -> UnseenImages:
    """Choose the images to evaluate.

    Args:
        dataset: All images.
        part: A part of the split list, "all", or "unseen".
        networks: The trained models, whose cards list the images they were trained on.
        split_file: Split list, needed for "train", "validation" and "test".

    Returns:
        The selection.

    Raises:
        WorkshopError: No image remains, or the split list is missing or does not fit the data.
    """
    wanted = range(len(dataset.samples))
    if part in ("train", "validation", "test"):
        if split_file is None:
            raise WorkshopError(f"--part {part}: needs a split list; give --split FILE")
        names = set(splits.read(split_file).part(part))
        missing = sorted(names - {sample.name for sample in dataset.samples})
        if missing:
            raise WorkshopError(
                f"--split: {split_file}: {missing[0]!r} is not in the data ({len(missing)} in "
                "total); give the list of this data"
            )
        pick = [i for i in wanted if dataset.samples[i].name in names]
        if not pick:
            raise WorkshopError(f"--part {part}: {split_file} has no image in it; use another part")
    else:
        pick = list(wanted)
    known = {digest for one in networks if one.card for digest in one.card.seen}
    seen, problems = set(), []
    for i in pick if known else ():
        try:
            if dataset.digest(i) in known:
                seen.add(i)
        except WorkshopError as error:
            problems.append(Problem(name=dataset.samples[i].name, reason=str(error)))
    broken = {problem.name for problem in problems}
    kept = [i for i in pick if dataset.samples[i].name not in broken]
    if part == "unseen":
        kept = [i for i in kept if i not in seen]
        if not kept and seen:
            raise WorkshopError(
                f"--part unseen: all {len(seen)} images were used in training or "
                "validation; give other data, or --part all for figures that are too good"
            )
        return UnseenImages(tuple(kept), frozenset(), len(seen), tuple(problems))
    return UnseenImages(tuple(kept), frozenset(seen), 0, tuple(problems))


@dataclass(frozen=True, slots=True, eq=False)
class ImageView:
    """Image, masks and prediction for the gallery; `found` is None without a segmenter."""

    image: Image
    drawn: Planes
    found: ClassMap | None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluator:
    """Evaluator of the stages on a data set, at ascending thresholds (probabilities)."""

    dataset: DataSet
    stages: TrainedStages
    thresholds: tuple[float, ...]

    def evaluate(self, index: int) -> tuple[ImageRecord, ClassMap | None]:
        """Evaluate one image.

        Returns:
            The record, and the class map of the line at the lowest threshold, or of the segmenter
            without a gate; None without a segmenter.

        Raises:
            WorkshopError: The image or its mask cannot be read.
            ValueError: An output of a network is not finite.
        """
        sample = self.dataset.samples[index]
        image, planes = self.dataset.image(index), self.dataset.planes(index)
        prediction, stages = self.stages.predict(image), self.stages
        if not sample.defective:
            # The label takes precedence over the mask.
            planes = np.zeros_like(planes)
        parts = Components(planes)
        pixels = under_rule = classes = None
        line: tuple[ImageOutcome, ...] = ()
        if stages.segmenter is not None:
            of_pixels = stages.pixels(prediction)
            pixels = outcome(planes, of_pixels, int(of_pixels.any()), parts)
            found = stages.regions(prediction)
            classes = class_map(found, prediction.shape)
            under_rule = outcome(planes, classes, len(found), parts)
            for threshold in self.thresholds if stages.gate is not None else ():
                found = stages.line(prediction, logit(threshold))
                result = class_map(found, prediction.shape)
                line += (outcome(planes, result, len(found), parts),)
                if threshold == self.thresholds[0]:
                    classes = result
        record = ImageRecord(
            name=sample.name,
            index=index,
            defective=sample.defective,
            kinds=parts.kinds,
            logit=prediction.score,
            pixels=pixels,
            regions=under_rule,
            line=line,
        )
        return record, classes

    def view(self, record: ImageRecord) -> ImageView:
        """Return image, masks and prediction for the gallery.

        The prediction is that of the line at the lowest threshold, or of the segmenter alone if
        the gate stops the image. Raises as `evaluate`.
        """
        image, planes = self.dataset.image(record.index), self.dataset.planes(record.index)
        if not record.defective:
            planes = np.zeros_like(planes)
        if self.stages.segmenter is None:
            return ImageView(image, planes, None)
        prediction = self.stages.predict(image)
        lowest = logit(self.thresholds[0])
        if self.stages.gate is None or (record.logit is not None and record.logit < lowest):
            found = self.stages.regions(prediction)
        else:
            found = self.stages.line(prediction, lowest)
        return ImageView(image, planes, class_map(found, prediction.shape))


def evaluate_images(
    evaluator: Evaluator, chosen: UnseenImages, records: list[ImageRecord], problems: list[Problem]
) -> Iterator[tuple[str, Planes]]:
    """Evaluate the chosen images in turn.

    Args:
        evaluator: The stages and the data set.
        chosen: The images.
        records: Gets the record of each evaluated image.
        problems: Gets each image that could not be evaluated.

    Yields:
        Name and prediction of the line at the lowest threshold, bool (lines, pixels, classes).

    Raises:
        RunError: No image could be evaluated.
    """
    classes = np.arange(1, len(evaluator.dataset.class_names) + 1, dtype=np.uint8)
    for index in each(chosen.pick, "evaluate", "image", total=len(chosen.pick)):
        try:
            record, found = evaluator.evaluate(index)
        except (WorkshopError, ValueError) as error:
            problems.append(Problem(name=evaluator.dataset.samples[index].name, reason=str(error)))
            continue
        records.append(record)
        if found is not None:
            yield record.name, found[:, :, None] == classes
    if not records:
        every = (*chosen.problems, *problems)
        raise RunError(
            f"--data: none of {len(every)} images could be evaluated; correct them, the first is "
            f"{every[0].name}: {every[0].reason}"
        )


def summarise(
    evaluator: Evaluator,
    part: Part,
    chosen: UnseenImages,
    records: Sequence[ImageRecord],
    problems: Sequence[Problem],
) -> Evaluation:
    """Summarise the results of `evaluate_images`.

    Args:
        evaluator: The stages, the data set and the thresholds.
        part: The part that was evaluated.
        chosen: The images that were chosen.
        records: Records of the evaluated images.
        problems: Images that could not be evaluated.

    Returns:
        The content of `evaluation.json`.
    """
    stages, dataset = evaluator.stages, evaluator.dataset
    models = {
        stage: Model(file=one.file, sha256=one.sha256, knows_seen=one.card is not None)
        for stage, one in (("gate", stages.gate), ("segmenter", stages.segmenter))
        if one is not None
    }
    images = Images(
        data=dataset.name,
        part=part,
        judged=len(records),
        clean=sum(not r.defective for r in records),
        drawn=sum(r.defective and bool(r.kinds) for r in records),
        not_drawn=sum(r.defective and not r.kinds for r in records),
        seen=sum(r.index in chosen.seen for r in records),
        left_out=chosen.left_out,
        problems=(*chosen.problems, *problems),
    )
    return evaluation(
        images, models, dataset.class_names, stages.rule, evaluator.thresholds, records
    )
