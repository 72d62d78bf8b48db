"""An export with labelled images: sets made, forms guarded, artifacts judged, a report written."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_agent.bundle.manifest import RegionRule
from edge_agent.frame import Image
from export.acceptance import splits
from export.acceptance.criteria import Limits
from export.acceptance.fallback import Ladder
from export.acceptance.scoring import Examiner, Network, Scores
from export.acceptance.splits import Sets
from export.bundle_writer import BESIDE, Made
from export.exporter import ConvertAll, Form, opened
from export.float_comparison import Row
from export.report import document, page, pictures, speed
from workshop.datasets import DataSet, open_dataset
from workshop.errors import WorkshopError
from workshop.keras_models.load import Source
from workshop.near_duplicates import groups

SETS, REPORT, SPEED, PAGE = BESIDE


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Artifacts with their thresholds, by stage; what is told of them, as files beside the bundle
    and as entries of its manifest. `unnamed` are files that differ from run to run."""

    made: dict[str, list[Made]]
    report: document.Report
    beside: dict[str, bytes]
    unnamed: dict[str, bytes]
    provenance: dict[str, str]


class Guard:
    """One export's labelled data, its four sets, and what is asked of the forms."""

    def __init__(self, data: DataSet, four: Sets, limits: Limits, rule: RegionRule) -> None:
        self.data, self._sets, self._limits, self._rule = data, four, limits, rule
        self._ladders: list[Ladder] = []

    def images(self) -> list[Image]:
        """Of the range set."""
        return [self.data.image(i) for i in self._sets.range]

    def convert_all(self, source: Source, tell: Callable[[str], None]) -> ConvertAll:
        """What makes the forms of this network; `tell` hears of each attempt."""
        ladder = Ladder(self._examiner(source), self._sets.search, self._limits, tell)
        self._ladders.append(ladder)
        return ladder.convert_all

    def judge(
        self, sources: Sequence[Source], made: Mapping[str, Sequence[Made]], rows: Sequence[Row]
    ) -> Judged:
        """Thresholds from the threshold set, verdicts from the test set. `rows` are those of the
        comparison, for the page."""
        with tempfile.TemporaryDirectory() as folder:
            networks = {
                one.stage: [one.run, *_opened(one.stage, made[one.stage], Path(folder))]
                for one in sources
            }
            return self._judged(sources, made, networks, rows)

    def _judged(
        self,
        sources: Sequence[Source],
        made: Mapping[str, Sequence[Made]],
        networks: Mapping[str, Sequence[Network]],
        rows: Sequence[Row],
    ) -> Judged:
        gate, segmenter = sources

        def ask(one: Source, images: Sequence[int], what: str) -> tuple[Scores, ...]:
            return self._ask(one, made[one.stage], networks[one.stage], images, what)

        chosen = document.thresholds(ask(gate, self._sets.threshold, "threshold set"), self._limits)
        gates, segmenters = (ask(one, self._sets.test, "test set") for one in sources)
        subjects = {
            stage: (
                document.Subject("float-keras"),
                *(document.Subject(_label(m), len(m.data)) for m in of_stage),
            )
            for stage, of_stage in made.items()
        }
        listed = splits.text(self._sets, self.data)
        report = document.Report(
            notice=_notice(self._sets),
            limits=self._limits,
            sets=self._counts(),
            sets_sha256=hashlib.sha256(listed).hexdigest(),
            outcomes=tuple(outcome for ladder in self._ladders for outcome in ladder.outcomes),
            gate=document.gates(subjects[gate.stage], chosen, gates, self._limits),
            segmenter=document.segmenters(subjects[segmenter.stage], segmenters, self._limits),
        )
        timings = speed.of(rows)
        shown = page.html(
            report,
            timings,
            rows,
            self.data.class_names,
            pictures.flips(self._examiner(gate), report.gate),
            pictures.worst_masks(
                self._examiner(segmenter), report.segmenter, networks[segmenter.stage]
            ),
        )
        with_thresholds = [
            replace(one, threshold_logit=threshold)
            for one, threshold in zip(made["gate"], chosen[1:], strict=True)
        ]
        return Judged(
            {"gate": with_thresholds, "segmenter": list(made["segmenter"])},
            report,
            {SETS: listed, REPORT: document.encode(report)},
            {SPEED: speed.encode(timings), PAGE: shown.encode()},
            {"gate_threshold": _basis(report)},
        )

    def _examiner(self, source: Source) -> Examiner:
        return Examiner(source.stage, source.spec, self._rule, self.data)

    def _counts(self) -> tuple[document.SetCounts, ...]:
        return tuple(
            document.SetCounts(
                part=part,
                images=len(indices),
                defective=sum(self.data.samples[i].defective for i in indices),
            )
            for part, indices in self._sets.parts()
        )

    def _ask(
        self,
        source: Source,
        made: Sequence[Made],
        networks: Sequence[Network],
        images: Sequence[int],
        what: str,
    ) -> tuple[Scores, ...]:
        """Float Keras and every artifact."""
        examiner = self._examiner(source)
        asked = examiner.ask(networks, images, f"{source.stage}, {what}")
        examiner.reference(asked[0])
        for one, scores in zip(made, asked[1:], strict=True):
            if source.stage == "gate" and not np.isfinite(scores.values).all():
                raise WorkshopError(f"--forms: gate {_label(one)}: no number; leave this form out")
        return asked


def open_guard(
    folder: Path,
    names: tuple[str, ...],
    sources: Sequence[Source],
    listed: Path | None,
    most: Sequence[int],
    limits: Limits,
    rule: RegionRule,
) -> Guard:
    """Opens the data and makes the sets, or reads them; checked either way.

    `names` are those of the classes, () the data's own. `most` as the limits of `sets.make`.
    Raises WorkshopError and WorkshopError.
    """
    data = _data(folder, names, sources[1].output_shape[2])
    cards = [source.card for source in sources]
    known = all(card is not None and card.seen for card in cards)
    seen = splits.seen(data, {digest for card in cards if card for digest in card.seen})
    alike = groups(data)
    if listed is None:
        four = splits.make(data, alike, seen, known=known, limits=most)
    else:
        four = splits.read(listed, data, known=known)
    where = f"--data: {folder}" if listed is None else f"--sets: {listed}"
    splits.check(four, data, alike, seen, where)
    return Guard(data, four, limits, rule)


def _data(folder: Path, names: tuple[str, ...], maps: int) -> DataSet:
    """With a name for each of the segmenter's maps: class_k where the data has none."""
    if names:
        return open_dataset(folder, names)
    own = open_dataset(folder).class_names
    if len(own) > maps:
        raise WorkshopError(f"--data: {folder}: {len(own)} classes, the segmenter has {maps} maps")
    return open_dataset(folder, (*own, *(f"class_{k}" for k in range(len(own) + 1, maps + 1))))


def _basis(report: document.Report) -> str:
    (counts,) = [s for s in report.sets if s.part == "threshold"]
    return (
        f"miss rate {report.limits.miss_rate} on {counts.defective} defective, "
        f"{counts.images - counts.defective} clean frames"
    )


def _label(made: Made) -> str:
    return _form(made).label


def _form(made: Made) -> Form:
    return Form(made.format, made.precision, made.cpu)


def _opened(stage: str, made: Sequence[Made], folder: Path) -> list[Network]:
    """Every artifact's network; `folder` takes the files."""
    own = folder / stage
    own.mkdir()
    return [opened(_form(one), one.data, own).run for one in made]


def _notice(four: Sets) -> str:
    if four.known:
        return "Thresholds and verdicts come from images that the networks have not seen."
    return (
        "Whether the networks have seen these images in training is not known. If they have, the "
        "figures are too good."
    )
