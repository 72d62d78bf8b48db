"""One run of the agent: put together, keep alive, take down, sum up."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import bundle as bundles
from edge_agent import events
from edge_agent.broker import EmbeddedBroker
from edge_agent.camera import open_camera
from edge_agent.config import Config
from edge_agent.delivery import Delivery
from edge_agent.errors import ConfigError
from edge_agent.gate import Gate
from edge_agent.health import sd_notify, watchdog_interval_s
from edge_agent.pipeline import Identity, Pipeline
from edge_agent.publish import Connection, Will, check_files
from edge_agent.runtime import Choice, choose
from edge_agent.segment import Segmenter
from edge_agent.spool import Spool
from edge_agent.version import VERSION

_log = logging.getLogger(__name__)

_DRAIN_S = 8.0
_STUCK_S = 30.0
"""A thread that has not come round for this long holds back the watchdog's word."""


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """A verified bundle with the artifact chosen for each stage."""

    bundle: bundles.Bundle
    gate: Choice
    segmenter: Choice

    @property
    def ref(self) -> events.BundleRef:
        manifest = self.bundle.manifest
        return events.BundleRef(
            name=manifest.name,
            version=manifest.version,
            sha256=self.bundle.sha256,
            gate=self.gate.artifact.label,
            segmenter=self.segmenter.artifact.label,
        )


def prepare_stages(config: Config) -> Stages:
    """Load, verify and choose. Raises BundleError; takes a second or two."""
    bundle = bundles.load(Path(config.agent.bundle))
    manifest = bundle.manifest
    precision, threads = config.agent.precision, config.threads
    return Stages(
        bundle,
        choose(bundle, manifest.gate, precision=precision, threads=threads),
        choose(bundle, manifest.segmenter, precision=precision, threads=threads),
    )


class Agent:
    """Constructed when all that can be refused at the start has been checked."""

    def __init__(self, config: Config, frame_limit: int | None = None) -> None:
        """Raises ConfigError, BundleError or CameraError."""
        self._config = config
        self._began_s = time.monotonic()
        boot_id = uuid.uuid4().hex
        self._boot_id = boot_id
        self._broker: EmbeddedBroker | None = None
        check_files(config.mqtt)
        self._lock = _Lock(config.state_dir)
        stages = prepare_stages(config)
        for name, choice in (("gate", stages.gate), ("segmenter", stages.segmenter)):
            for refusal in choice.refused:
                _log.info("%s: %s not used: %s", name, refusal.label, refusal.reason)
            _log.info(
                "%s: %s, %s, %.1f ms",
                name,
                choice.artifact.label,
                choice.runtime.name,
                choice.run_ms,
            )
        camera = open_camera(config.camera)
        if config.mqtt.broker == "embedded":
            self._broker = EmbeddedBroker(config.mqtt.port)
        ref = stages.ref
        birth, death = (
            msgspec.json.encode(
                events.StateDocument(
                    boot_id=boot_id, state=state, agent_version=VERSION, bundle=ref
                )
            )
            for state in ("online", "offline")
        )
        client_id = f"{config.agent.name}-{boot_id[:8]}"
        will = Will(f"{config.topic_base}/state", death)
        self._delivery = Delivery(
            open_spool=lambda: Spool(config.state_dir / "spool.sqlite3", config.queues.spool_bytes),
            connect=lambda tell, mqtt311: Connection(config.mqtt, client_id, will, tell, mqtt311),
            topic_base=config.topic_base,
            birth=birth,
            death=death,
            max_drafts=config.queues.messages,
            window=config.mqtt.window,
            # amqtt speaks nothing newer.
            mqtt311=self._broker is not None or config.mqtt.protocol == "3.1.1",
        )
        manifest = stages.bundle.manifest
        self._pipeline = Pipeline(
            config=config,
            bundle=stages.bundle,
            bundle_ref=ref,
            gate=Gate(manifest.gate.input, stages.gate),
            segmenter=Segmenter(manifest.segmenter.input, stages.segmenter, manifest.regions),
            camera=camera,
            delivery=self._delivery,
            identity=Identity(
                agent=config.agent.name,
                site=config.agent.site,
                line=config.agent.line,
                coil=config.agent.coil,
                boot_id=boot_id,
            ),
            frame_limit=frame_limit,
        )
        self._ref = ref
        self._inspecting_s = 0.0

    def run(self) -> dict[str, Any]:
        """Inspect until the camera ends, the limit is reached or a signal comes; the summary.

        Raises the CameraError that ended the run, after everything was delivered and closed.
        """
        with _signals(self._pipeline.stop):
            self._delivery.start()
            began = time.monotonic()
            self._pipeline.start()
            sd_notify("READY=1")
            self._tend(began)
            self._pipeline.join()
            self._inspecting_s = time.monotonic() - began
            sd_notify("STOPPING=1")
            self._delivery.set_health(msgspec.json.encode(self.health()))
            self._delivery.stop(_DRAIN_S)
            self._delivery.join()
        if self._broker:
            self._broker.close()
        self._lock.release()
        if self._pipeline.failure:
            raise self._pipeline.failure
        return self.summary()

    def _tend(self, began: float) -> None:
        """The main thread's work while the others run: health documents and the watchdog."""
        watchdog_s = watchdog_interval_s()
        next_word = next_health = began
        while not self._pipeline.finished:
            time.sleep(0.05)
            now = time.monotonic()
            if now >= next_health:
                next_health = now + self._config.health.interval_s
                document = self.health()
                self._delivery.set_health(msgspec.json.encode(document))
                sd_notify(
                    f"STATUS={document.frames_inspected} frames inspected, "
                    f"{document.frames_defective} defective, {sum(document.gaps.values())} gaps"
                )
            if watchdog_s is not None and now >= next_word and self._all_advance(now):
                next_word = now + watchdog_s
                sd_notify("WATCHDOG=1")

    def _all_advance(self, now: float) -> bool:
        marks = {**self._pipeline.progress_s, "delivery": self._delivery.progress_s}
        stuck = [name for name, at in marks.items() if now - at > _STUCK_S]
        if stuck:
            _log.error("no progress for %.0f s: %s", _STUCK_S, ", ".join(stuck))
        return not stuck

    def health(self) -> events.HealthDocument:
        tally, delivered = self._pipeline.tally, self._delivery.counts()
        gaps = tally.gaps()
        if delivered.overflow_gaps:
            gaps["spool_overflow"] = delivered.overflow_gaps
        return events.HealthDocument(
            boot_id=self._boot_id,
            time=events.utc(time.time_ns()),
            uptime_s=round(time.monotonic() - self._began_s, 3),
            frames_captured=tally.captured,
            frames_inspected=tally.inspected,
            frames_suspect=tally.suspect,
            frames_defective=tally.defective,
            frames_in_work=tally.in_work,
            lines_inspected=tally.lines_inspected,
            gaps=gaps,
            events_spooled=delivered.events_spooled,
            events_published=delivered.events_published,
            messages_pending=delivered.messages_pending,
            messages_dropped=delivered.messages_dropped,
            spool=delivered.spool,
            latency=tally.times(),
        )

    def summary(self) -> dict[str, Any]:
        """The health document at the end, with the rate and what ran."""
        document: dict[str, Any] = json.loads(msgspec.json.encode(self.health()))
        rate = document["frames_inspected"] / self._inspecting_s if self._inspecting_s else 0.0
        return document | {
            "agent_version": VERSION,
            "bundle": json.loads(msgspec.json.encode(self._ref)),
            "inspecting_s": round(self._inspecting_s, 3),
            "frames_per_second": round(rate, 2),
        }


class _Lock:
    """One agent per state directory: two would share a spool."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / "agent.lock").open("w")
        except OSError as error:
            raise ConfigError(
                f"agent.state_dir: {folder}: {error.strerror}; give a folder we may write to"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                f"agent.state_dir: {folder}: another agent is using it; "
                "give this one its own agent.name or agent.state_dir"
            ) from None

    def release(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _signals(stop: Any) -> Iterator[None]:
    """SIGTERM and SIGINT end the run in good order; left alone outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, lambda *_: stop()) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
