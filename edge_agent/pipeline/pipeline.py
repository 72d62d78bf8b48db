"""Pipeline: camera, inference and delivery, joined by bounded queues.

Each line and each frame that the camera counts is either inspected or declared in a gap.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite

from edge_agent.camera import Camera, EndOfStream
from edge_agent.config.config import Config
from edge_agent.delivery.delivery import Delivery, Draft
from edge_agent.errors import EdgeError
from edge_agent.frame import Frame, Gap, GapReason, Region
from edge_agent.inspection.models import Models
from edge_agent.inspection.strip import StripTracker, untold
from edge_agent.pipeline import event_builder
from edge_agent.pipeline.event_builder import AgentIdentity
from edge_agent.pipeline.evidence import RateLimit, jpeg
from edge_agent.pipeline.tally import Tally

_log = logging.getLogger(__name__)

_GRAB_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """Judged frame with its bundle and the time taken; `failed` if inference raised an error."""

    frame: Frame
    bundle_sha256: str
    judged_ms: float
    failed: bool = False


class Pipeline:
    """Camera thread and inference thread of one run.

    Call `start`, wait for `finished` or call `stop`, then `join`. `failure` is the error of the
    camera that ended the run, or None.
    """

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
        """Called with each judged frame in the inference thread; must not block or raise."""
        self._evidence = config.evidence
        self._pictures = RateLimit(config.evidence.per_minute)
        self._wanted: queue.SimpleQueue[Frame] | None = None
        self._why_stopped = ""
        self._queue: queue.Queue[Frame | Gap | None] = queue.Queue(config.queues.frames)
        self._stop = threading.Event()
        now = time.monotonic()
        self.progress_s = {"camera": now, "inference": now}
        """Monotonic time in s of the last iteration of each running loop; for the watchdog."""
        self._threads = [
            threading.Thread(target=self._grab_loop, name="camera", daemon=True),
            threading.Thread(target=self._inspect_loop, name="inference", daemon=True),
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop grabbing frames; frames already grabbed are still judged."""
        self._stop.set()

    def use(self, models: Models) -> None:
        """Use `models` from the next frame on; a frame in progress finishes with the old ones."""
        self._models = models

    def set_coil(self, coil: str) -> None:
        """Set the coil of frames judged from now on."""
        self._who = replace(self._who, coil=coil)

    @property
    def coil(self) -> str:
        """Current coil."""
        return self._who.coil

    def suspend(self, why: str) -> None:
        """Stop the inspection, with `why` as the detail of the gaps.

        Frames of a live camera are still taken, and declared as gaps of reason stopped; a camera
        that is not live waits.
        """
        self._why_stopped = why

    def resume(self) -> None:
        """Restart the inspection."""
        self._why_stopped = ""

    def next_frame(self, timeout_s: float) -> Frame | None:
        """Wait for the next frame, judged or not.

        Returns:
            A copy of the frame, or None if none arrives within `timeout_s`.
        """
        mine: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._wanted = mine
        try:
            return mine.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @property
    def suspended(self) -> bool:
        """True if the inspection is stopped."""
        return bool(self._why_stopped)

    @property
    def camera(self) -> Camera:
        """Camera, for its status and counts; only the camera thread grabs frames."""
        return self._camera

    @property
    def finished(self) -> bool:
        """True if both threads have ended."""
        return not any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait for both threads to end."""
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
            del self.progress_s["camera"]  # the thread has ended; the watchdog must not report it

    def _limit_reached(self) -> bool:
        return self._limit is not None and self.tally.captured >= self._limit

    def _pass_on(self, taken: Frame | Gap) -> None:
        if not self._camera.live:
            self._put(taken)
            return
        try:
            self._queue.put_nowait(taken)
        except queue.Full:
            # A live camera does not wait: a frame that finds the queue full is declared lost.
            if isinstance(taken, Frame):
                detail = f"{self._queue.maxsize} frames were waiting"
                taken = _gap(taken, GapReason.OVERLOAD, detail)
            self._declare(taken)

    def _put(self, item: Frame | Gap | None) -> None:
        """Queue an item, waiting for room; meanwhile refresh the camera's progress time."""
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
            except Exception as error:  # any error of a native library; the line must go on
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
        times = {"wait": _ms(began - frame.span.captured_monotonic_ns)}
        verdict = models.gate.judge(frame.image)
        if not isfinite(verdict.score_logit):
            # NaN or infinity is neither clean nor suspect, and JSON cannot hold it: declare a gap.
            raise ArithmeticError(f"the gate's score is {verdict.score_logit}")
        judged = time.monotonic_ns()
        times["gate"] = _ms(judged - began)
        found: tuple[Region, ...] = ()
        if verdict.suspect:
            found = models.segmenter.find(frame.image, verdict.suspect_tiles)
            times["segment"] = _ms(time.monotonic_ns() - judged)
        # A defect continues in the next frame only under the same class names.
        places = self._strip.place(frame, found, models.class_names)
        # Leave out defects that the previous frame's event has already reported.
        found, places = untold(found, places)
        times["total"] = _ms(time.monotonic_ns() - frame.span.captured_monotonic_ns)
        if found:
            event = event_builder.defect_event(
                self._who,
                frame,
                bundle=models.ref,
                class_names=models.class_names,
                verdict=verdict,
                regions=found,
                places=places,
                latency_ms=times,
            )
            self._delivery.offer(Draft(event, frame.span.captured_utc_ns, self._picture(frame)))
        self.tally.frame_inspected(
            lines=frame.new_lines,
            suspect=verdict.suspect,
            defective=bool(found),
            times_ms=times,
        )
        self._tell(frame, models, began)

    def _picture(self, frame: Frame) -> Callable[[], bytes] | None:
        """Return a function that makes the frame's picture in any thread; None if not wanted."""
        rules = self._evidence
        if not rules.pictures or not self._pictures.take():
            return None
        image = frame.image.copy()  # the camera may reuse its buffer
        return lambda: jpeg(image, rules)[0]

    def _declare(self, gap: Gap) -> None:
        """Declare a gap; called in both threads, since an overload occurs in the camera thread."""
        _log.warning("gap: frame %d: %s: %s", gap.frame_id, gap.reason.value, gap.detail)
        event = event_builder.gap_event(self._who, gap)
        self._delivery.offer(Draft(event, gap.span.captured_utc_ns))
        self.tally.gap(gap)


def _gap(frame: Frame, reason: GapReason, detail: str) -> Gap:
    return Gap(reason, frame.frame_id, frame.new_span, detail)


def _ms(nanoseconds: int) -> float:
    return nanoseconds / 1e6
