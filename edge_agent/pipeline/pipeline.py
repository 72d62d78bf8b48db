"""Camera, inference and delivery joined by bounded queues; the only file that knows everyone.

Every line and every frame the camera counts ends in exactly one of two places: inspected, or
declared in a gap.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, isfinite
from typing import Any

from edge_agent.camera import Camera, EndOfStream
from edge_agent.config.config import Config
from edge_agent.delivery.delivery import Delivery, Draft
from edge_agent.errors import EdgeError
from edge_agent.frame import Frame, Gap, GapReason, Region
from edge_agent.inspection.gate import GateDecision
from edge_agent.inspection.models import Models
from edge_agent.inspection.strip import DefectPosition, StripTracker, untold
from edge_agent.messages import events
from edge_agent.pipeline.evidence import RateLimit, jpeg
from edge_agent.pipeline.tally import Tally

_log = logging.getLogger(__name__)

_GRAB_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """Who speaks; `boot_id` is new at every start of the agent."""

    agent: str
    site: str
    line: str
    coil: str
    boot_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """A frame that was judged, by which bundle and in what time; or `failed` on it."""

    frame: Frame
    bundle_sha256: str
    judged_ms: float
    failed: bool = False


class Pipeline:
    """`start`, then `finished` until it is true or `stop` is called, then `join`."""

    def __init__(
        self,
        *,
        config: Config,
        models: Models,
        camera: Camera,
        delivery: Delivery,
        identity: AgentIdentity,
        frame_limit: int | None = None,
    ) -> None:
        self._models, self._camera = models, camera
        self._delivery, self._who, self._limit = delivery, identity, frame_limit
        self._strip = StripTracker(
            config.strip.pixel_width_mm,
            config.strip.line_length_mm,
            lambda frame, index: f"{identity.boot_id[:8]}-{frame.frame_id}-{index}",
        )
        self.tally = Tally()
        self.failure: EdgeError | None = None
        self.observer: Callable[[Inspection], None] | None = None
        """Told of each judged frame by the inference thread: it must not wait, nor raise."""
        self._evidence = config.evidence
        self._pictures = RateLimit(config.evidence.per_minute)
        self._wanted: queue.SimpleQueue[Frame] | None = None
        self._why_stopped = ""
        self._queue: queue.Queue[Frame | Gap | None] = queue.Queue(config.queues.frames)
        self._stop = threading.Event()
        now = time.monotonic()
        self.progress_s = {"camera": now, "inference": now}
        """When each loop last came round; for the watchdog. One that has ended is gone from it."""
        self._threads = [
            threading.Thread(target=self._grab_loop, name="camera", daemon=True),
            threading.Thread(target=self._inspect_loop, name="inference", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No more frames are grabbed; those that were are still judged."""
        self._stop.set()

    def use(self, models: Models) -> None:
        """From the next frame on; a frame that is being judged is judged to its end by the old."""
        self._models = models

    def set_coil(self, coil: str) -> None:
        """For what is judged from now on."""
        self._who = replace(self._who, coil=coil)

    @property
    def coil(self) -> str:
        return self._who.coil

    def suspend(self, why: str) -> None:
        """Inspect nothing. A live camera's frames are taken all the same, and declared as gaps
        with this reason; others wait to be asked for."""
        self._why_stopped = why

    def resume(self) -> None:
        self._why_stopped = ""

    def next_frame(self, timeout_s: float) -> Frame | None:
        """A copy of the next frame, whether it is judged or not."""
        mine: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._wanted = mine
        try:
            return mine.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @property
    def suspended(self) -> bool:
        return bool(self._why_stopped)

    @property
    def camera(self) -> Camera:
        """For its status and counts; only the camera thread grabs."""
        return self._camera

    @property
    def finished(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    # Camera thread.

    def _grab_loop(self) -> None:
        try:
            while not self._stop.is_set() and not self._limit_reached():
                self.progress_s["camera"] = time.monotonic()
                if self._why_stopped and not self._camera.live:
                    time.sleep(0.1)
                    continue
                taken = self._camera.grab(_GRAB_TIMEOUT_S)
                if taken is not None:
                    self.tally.frame_captured(taken)
                    self._pass_on(taken)
            for rest in self._camera.drain():
                self.tally.frame_captured(rest)
                self._put(rest)
        except EndOfStream:
            pass
        except EdgeError as error:
            self.failure = error
        finally:
            self._camera.close()
            self._put(None)
            del self.progress_s["camera"]  # at its end, not standing still

    def _limit_reached(self) -> bool:
        return self._limit is not None and self.tally.captured >= self._limit

    def _pass_on(self, taken: Frame | Gap) -> None:
        if not self._camera.live:
            self._put(taken)
            return
        try:
            self._queue.put_nowait(taken)
        except queue.Full:
            # The camera does not wait: what finds no room is lost, and said to be.
            if isinstance(taken, Frame):
                detail = f"{self._queue.maxsize} frames were waiting"
                taken = _gap(taken, GapReason.OVERLOAD, detail)
            self._declare(taken)

    def _put(self, item: Frame | Gap | None) -> None:
        """Wait for room, and keep the camera's progress mark fresh: waiting is not hanging."""
        while True:
            try:
                self._queue.put(item, timeout=_GRAB_TIMEOUT_S)
                return
            except queue.Full:
                self.progress_s["camera"] = time.monotonic()

    # Inference thread.

    def _inspect_loop(self) -> None:
        while True:
            self.progress_s["inference"] = time.monotonic()
            try:
                item = self._queue.get(timeout=_GRAB_TIMEOUT_S)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, Gap):
                self._declare(item)
                continue
            wanted, self._wanted = self._wanted, None
            if wanted:
                wanted.put(replace(item, image=item.image.copy()))
            if self._why_stopped and self._camera.live:
                self._declare(_gap(item, GapReason.STOPPED, self._why_stopped))
                continue
            models, began = self._models, time.monotonic_ns()
            try:
                self._inspect(item, models, began)
            except Exception as error:  # whatever a native library raises, the line goes on
                _log.exception("frame %d", item.frame_id)
                detail = f"{type(error).__name__}: {error}"[:300]
                self._declare(_gap(item, GapReason.INFERENCE_ERROR, detail))
                self._tell(item, models, began, failed=True)

    def _tell(self, frame: Frame, models: Models, began: int, *, failed: bool = False) -> None:
        observer = self.observer
        if observer:
            judged_ms = _ms(time.monotonic_ns() - began)
            observer(Inspection(frame, models.ref.sha256, judged_ms, failed))

    def _inspect(self, frame: Frame, models: Models, began: int) -> None:
        times = {"wait": _ms(began - frame.captured_monotonic_ns)}
        verdict = models.gate.judge(frame.image)
        if not isfinite(verdict.score_logit):
            # Neither clean nor an alert: JSON has no such number, so it is declared as a gap.
            raise ArithmeticError(f"the gate's score is {verdict.score_logit}")
        judged = time.monotonic_ns()
        times["gate"] = _ms(judged - began)
        found: tuple[Region, ...] = ()
        if verdict.suspect:
            found = models.segmenter.find(frame.image, verdict.suspect_tiles)
            times["segment"] = _ms(time.monotonic_ns() - judged)
        # A defect goes on in the next frame only under the same class names.
        places = self._strip.place(frame, found, models.class_names)
        # What the frame before has told is not told again.
        found, places = untold(found, places)
        times["total"] = _ms(time.monotonic_ns() - frame.captured_monotonic_ns)
        if found:
            event = self._event(frame, models, verdict, found, places, times)
            self._delivery.offer(Draft(event, frame.captured_utc_ns, self._picture(frame)))
        self.tally.frame_inspected(
            lines=frame.new_lines,
            suspect=verdict.suspect,
            defective=bool(found),
            times_ms=times,
        )
        self._tell(frame, models, began)

    def _picture(self, frame: Frame) -> Callable[[], bytes] | None:
        """What makes the frame's picture, in whatever thread; None where none is wanted."""
        rules = self._evidence
        if not rules.pictures or not self._pictures.take():
            return None
        image = frame.image.copy()  # the camera may use its buffer again
        return lambda: jpeg(image, rules)[0]

    def _event(
        self,
        frame: Frame,
        models: Models,
        verdict: GateDecision,
        found: tuple[Region, ...],
        places: tuple[DefectPosition, ...],
        times: dict[str, float],
    ) -> events.DefectEvent:
        lines, pixels = frame.image.shape[:2]
        return events.DefectEvent(
            **self._common(frame),
            line_count=lines,
            overlap_lines=frame.overlap_lines,
            encoder_count=frame.encoder_count,
            encoder_end=frame.encoder_end,
            source=frame.source,
            gate=events.GateScore(
                score_logit=round(verdict.score_logit, 4),
                threshold_logit=round(verdict.threshold_logit, 4),
                probability=_sigmoid(verdict.score_logit),
            ),
            bundle=models.ref,
            latency_ms={stage: round(ms, 3) for stage, ms in times.items()},
            defects=tuple(
                events.Defect(
                    id=place.defect_id,
                    class_name=models.class_names[region.class_id - 1],
                    class_id=region.class_id,
                    confidence=round(region.confidence, 4),
                    box_px=events.BoxPx(
                        x=region.x_px, y=region.y_px, width=region.width_px, height=region.height_px
                    ),
                    area_px=region.area_px,
                    area_mm2=place.area_mm2,
                    across_mm=place.across_mm,
                    along_m=place.along_m,
                    mask=events.MaskRle(lines=lines, pixels=pixels, runs=region.rle),
                )
                for region, place in zip(found, places, strict=True)
            ),
        )

    def _declare(self, gap: Gap) -> None:
        """Either thread: an overload is declared where it happens."""
        _log.warning("gap: frame %d: %s: %s", gap.frame_id, gap.reason.value, gap.detail)
        data = events.GapEvent(
            **self._common(gap),
            line_count=gap.line_count,
            frame_count=gap.frame_count,
            encoder_count=gap.encoder_count,
            encoder_end=gap.encoder_end,
            reason=gap.reason,
            detail=gap.detail,
        )
        self._delivery.offer(Draft(data, gap.captured_utc_ns))
        self.tally.gap(gap)

    def _common(self, of: Frame | Gap) -> dict[str, Any]:
        return {
            "agent": self._who.agent,
            "site": self._who.site,
            "line": self._who.line,
            "coil": self._who.coil,
            "boot_id": self._who.boot_id,
            "seq": 0,  # numbered when spooled
            "replayed": False,
            "frame_id": of.frame_id,
            "first_line": of.first_line,
            "captured_monotonic_ns": of.captured_monotonic_ns,
        }


def _gap(frame: Frame, reason: GapReason, detail: str) -> Gap:
    return Gap(
        reason=reason,
        frame_id=frame.frame_id,
        first_line=frame.first_line + frame.overlap_lines,
        line_count=frame.new_lines,
        captured_utc_ns=frame.captured_utc_ns,
        captured_monotonic_ns=frame.captured_monotonic_ns,
        detail=detail,
        encoder_count=frame.encoder_at(frame.first_line + frame.overlap_lines),
        encoder_end=frame.encoder_end,
    )


def _ms(nanoseconds: int) -> float:
    return nanoseconds / 1e6


def _sigmoid(logit: float) -> float:
    # 1 / (1 + e^-x), written so that neither side overflows.
    return 1 / (1 + exp(-logit)) if logit >= 0 else exp(logit) / (1 + exp(logit))
