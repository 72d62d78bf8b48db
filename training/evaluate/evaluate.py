"""Two trained models and a data set to figures: choose the images, look at each once, sum up.

Of an image only counts and scores are kept; pixels are gone when the next one is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edge_agent.frame import ClassMap, Image
from edge_agent.inspection.segmenter import class_map
from training.errors import RunFailed
from training.evaluate.evaluation import Evaluation, Images, Model, Part, Problem, evaluation
from training.evaluate.predict import TrainedNetwork, TrainedStages
from workshop import splits
from workshop.datasets.base import DataSet, Planes
from workshop.errors import WorkshopError
from workshop.gate_metrics import logit
from workshop.segmentation_metrics import Components, ImageOutcome, ImageRecord, outcome


@dataclass(frozen=True, slots=True, eq=False)
class UnseenImages:
    """Indices into the data set, and what became of the rest."""

    pick: tuple[int, ...]
    seen: frozenset[int]
    left_out: int
    problems: tuple[Problem, ...]


def choose(
    dataset: DataSet, part: Part, networks: Sequence[TrainedNetwork], split_file: Path | None
) -> UnseenImages:
    """The images to judge. Raises WorkshopError where none is left."""
    wanted = range(len(dataset.samples))
    if part in ("train", "validation", "test"):
        if split_file is None:
            raise WorkshopError(f"--part {part}: which images are those? give --split FILE")
        names = set(splits.read(split_file).part(part))
        missing = sorted(names - {sample.name for sample in dataset.samples})
        if missing:
            raise WorkshopError(
                f"--split: {split_file}: {missing[0]!r} is not in the data ({len(missing)} such)"
            )
        pick = [i for i in wanted if dataset.samples[i].name in names]
        if not pick:
            raise WorkshopError(f"--part {part}: {split_file} names no image for it; take another")
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
                f"--part unseen: the models have seen all {len(seen)} images; give other data, or "
                "--part all for figures that are too good"
            )
        return UnseenImages(tuple(kept), frozenset(), len(seen), tuple(problems))
    return UnseenImages(tuple(kept), frozenset(seen), 0, tuple(problems))


@dataclass(frozen=True, slots=True, eq=False)
class ImageView:
    """What there is to see of one image; `found` is None without a segmenter."""

    image: Image
    drawn: Planes
    found: ClassMap | None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluator:
    """Looks at one image at a time and holds what the stages say against what is drawn."""

    dataset: DataSet
    stages: TrainedStages
    thresholds: tuple[float, ...]

    def see(self, index: int) -> tuple[ImageRecord, ClassMap | None]:
        """The record, and the line's class map at the least threshold for whoever wants it.

        WorkshopError where the image or its mask cannot be read, ValueError where an output is
        not a number.
        """
        sample = self.dataset.samples[index]
        image, planes = self.dataset.image(index), self.dataset.planes(index)
        look, stages = self.stages.look(image), self.stages
        if not sample.defective:
            # The label has the last word.
            planes = np.zeros_like(planes)
        parts = Components(planes)
        pixels = under_rule = classes = None
        line: tuple[ImageOutcome, ...] = ()
        if stages.segmenter is not None:
            of_pixels = stages.pixels(look)
            pixels = outcome(planes, of_pixels, int(of_pixels.any()), parts)
            found = stages.regions(look)
            classes = class_map(found, look.shape)
            under_rule = outcome(planes, classes, len(found), parts)
            for least in self.thresholds if stages.gate is not None else ():
                found = stages.line(look, logit(least))
                result = class_map(found, look.shape)
                line += (outcome(planes, result, len(found), parts),)
                if least == self.thresholds[0]:
                    classes = result
        record = ImageRecord(
            name=sample.name,
            index=index,
            defective=sample.defective,
            kinds=parts.kinds,
            logit=look.score,
            pixels=pixels,
            regions=under_rule,
            line=line,
        )
        return record, classes

    def view(self, record: ImageRecord) -> ImageView:
        """For the gallery: predictions at the least threshold, or of the segmenter alone where
        the gate stops the image."""
        image, planes = self.dataset.image(record.index), self.dataset.planes(record.index)
        if not record.defective:
            planes = np.zeros_like(planes)
        if self.stages.segmenter is None:
            return ImageView(image, planes, None)
        look = self.stages.look(image)
        least = logit(self.thresholds[0])
        if self.stages.gate is None or (record.logit is not None and record.logit < least):
            found = self.stages.regions(look)
        else:
            found = self.stages.line(look, least)
        return ImageView(image, planes, class_map(found, look.shape))


def judged(
    judge: Evaluator, chosen: UnseenImages, records: list[ImageRecord], problems: list[Problem]
) -> Iterator[tuple[str, Planes]]:
    """Look at the chosen images in turn; fills `records` and `problems`.

    Yields names and what the line found at the least threshold, bool (lines, pixels, classes).
    Raises RunFailed where no image could be judged.
    """
    classes = np.arange(1, len(judge.dataset.class_names) + 1, dtype=np.uint8)
    slow = 0.5 if sys.stderr.isatty() else 30
    for index in tqdm(chosen.pick, unit="image", mininterval=slow, desc="evaluate"):
        try:
            record, found = judge.see(index)
        except (WorkshopError, ValueError) as error:
            problems.append(Problem(name=judge.dataset.samples[index].name, reason=str(error)))
            continue
        records.append(record)
        if found is not None:
            yield record.name, found[:, :, None] == classes
    if not records:
        every = (*chosen.problems, *problems)
        raise RunFailed(
            f"none of {len(every)} images could be judged; the first: {every[0].name}: "
            f"{every[0].reason}"
        )


def summed_up(
    judge: Evaluator,
    part: Part,
    chosen: UnseenImages,
    records: Sequence[ImageRecord],
    problems: Sequence[Problem],
) -> Evaluation:
    """Everything that `judged` found."""
    stages, dataset = judge.stages, judge.dataset
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
    return evaluation(images, models, dataset.class_names, stages.rule, judge.thresholds, records)
