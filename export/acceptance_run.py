"""Export with labelled images: sets, conversion under the criteria, acceptance, report."""

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
from export.acceptance.fallback import Fallback
from export.acceptance.scoring import Network, Scorer, Scores
from export.acceptance.splits import AcceptanceSets
from export.bundle_writer import BESIDE, ExportedArtifact
from export.exporter import ConvertAll, Form, opened
from export.float_comparison import ComparisonRow
from export.report import document, page, pictures, speed
from workshop.datasets import DataSet, open_dataset
from workshop.errors import WorkshopError
from workshop.keras_models.load import FloatNetwork
from workshop.near_duplicates import groups

SETS, REPORT, SPEED, PAGE = BESIDE


@dataclass(frozen=True, slots=True, eq=False)
class AcceptanceResult:
    """Result of the acceptance: artifacts with their thresholds, by stage, and the report.

    The report consists of files beside the bundle and entries of its manifest. `unnamed` are files
    that differ from run to run.
    """

    made: dict[str, list[ExportedArtifact]]
    report: document.ExportReport
    beside: dict[str, bytes]
    unnamed: dict[str, bytes]
    provenance: dict[str, str]


class AcceptanceRun:
    """Acceptance of one export: its labelled data, the four sets and the criteria."""

    def __init__(
        self, data: DataSet, four: AcceptanceSets, limits: Limits, rule: RegionRule
    ) -> None:
        self.data, self._sets, self._limits, self._rule = data, four, limits, rule
        self._ladders: list[Fallback] = []

    def images(self) -> list[Image]:
        """Return the images of the range set."""
        return [self.data.image(i) for i in self._sets.range]

    def convert_all(self, source: FloatNetwork, tell: Callable[[str], None]) -> ConvertAll:
        """Return the converter of this network's forms; it calls `tell` for each attempt."""
        fallback = Fallback(self._examiner(source), self._sets.search, self._limits, tell)
        self._ladders.append(fallback)
        return fallback.convert_all

    def judge(
        self,
        sources: Sequence[FloatNetwork],
        made: Mapping[str, Sequence[ExportedArtifact]],
        rows: Sequence[ComparisonRow],
    ) -> AcceptanceResult:
        """Choose thresholds on the threshold set and judge all artifacts on the test set.

        `rows` are those of the float comparison, for the report page.
        """
        with tempfile.TemporaryDirectory() as folder:
            networks = {
                one.stage: [one.run, *_opened(one.stage, made[one.stage], Path(folder))]
                for one in sources
            }
            return self._judged(sources, made, networks, rows)

    def _judged(
        self,
        sources: Sequence[FloatNetwork],
        made: Mapping[str, Sequence[ExportedArtifact]],
        networks: Mapping[str, Sequence[Network]],
        rows: Sequence[ComparisonRow],
    ) -> AcceptanceResult:
        gate, segmenter = sources

        def ask(one: FloatNetwork, images: Sequence[int], what: str) -> tuple[Scores, ...]:
            return self._ask(one, made[one.stage], networks[one.stage], images, what)

        chosen = document.thresholds(ask(gate, self._sets.threshold, "threshold set"), self._limits)
        gates, segmenters = (ask(one, self._sets.test, "test set") for one in sources)
        subjects = {
            stage: (
                document.JudgedForm("float-keras"),
                *(document.JudgedForm(_label(m), len(m.data)) for m in of_stage),
            )
            for stage, of_stage in made.items()
        }
        listed = splits.text(self._sets, self.data)
        report = document.ExportReport(
            notice=_notice(self._sets),
            limits=self._limits,
            sets=self._counts(),
            sets_sha256=hashlib.sha256(listed).hexdigest(),
            outcomes=tuple(outcome for fallback in self._ladders for outcome in fallback.outcomes),
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
        return AcceptanceResult(
            {"gate": with_thresholds, "segmenter": list(made["segmenter"])},
            report,
            {SETS: listed, REPORT: document.encode(report)},
            {SPEED: speed.encode(timings), PAGE: shown.encode()},
            {"gate_threshold": _basis(report)},
        )

    def _examiner(self, source: FloatNetwork) -> Scorer:
        return Scorer(source.stage, source.spec, self._rule, self.data)

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
        source: FloatNetwork,
        made: Sequence[ExportedArtifact],
        networks: Sequence[Network],
        images: Sequence[int],
        what: str,
    ) -> tuple[Scores, ...]:
        """Return the scores of float Keras and of each artifact."""
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
    sources: Sequence[FloatNetwork],
    listed: Path | None,
    most: Sequence[int],
    limits: Limits,
    rule: RegionRule,
) -> AcceptanceRun:
    """Open the data and make the sets, or read them from `listed`; check them either way.

    `names` are those of the classes; () takes the data's own. `most` are the limits of
    `splits.make`. Raises WorkshopError for unusable data, lists and sets.
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
    return AcceptanceRun(data, four, limits, rule)


def _data(folder: Path, names: tuple[str, ...], maps: int) -> DataSet:
    """Open the data with one class name per map of the segmenter: class_k where it has none."""
    if names:
        return open_dataset(folder, names)
    own = open_dataset(folder).class_names
    if len(own) > maps:
        raise WorkshopError(f"--data: {folder}: {len(own)} classes, the segmenter has {maps} maps")
    return open_dataset(folder, (*own, *(f"class_{k}" for k in range(len(own) + 1, maps + 1))))


def _basis(report: document.ExportReport) -> str:
    (counts,) = [s for s in report.sets if s.part == "threshold"]
    return (
        f"miss rate {report.limits.miss_rate} on {counts.defective} defective, "
        f"{counts.images - counts.defective} clean frames"
    )


def _label(made: ExportedArtifact) -> str:
    return _form(made).label


def _form(made: ExportedArtifact) -> Form:
    return Form(made.format, made.precision, made.cpu)


def _opened(stage: str, made: Sequence[ExportedArtifact], folder: Path) -> list[Network]:
    """Return the network of each artifact; the files are written to `folder`."""
    own = folder / stage
    own.mkdir()
    return [opened(_form(one), one.data, own).run for one in made]


def _notice(four: AcceptanceSets) -> str:
    if four.known:
        return "Thresholds and verdicts come from images that the networks have not seen."
    return (
        "Whether the networks have seen these images in training is not known. If they have, the "
        "figures are too good."
    )
