"""One run of the agent: put together, keep alive, take down, sum up."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from edge_agent import events, parcel, replay, staging, updater, versions
from edge_agent.broker import EmbeddedBroker
from edge_agent.camera import Camera, CameraStatus, open_camera
from edge_agent.config import Config
from edge_agent.delivery import Delivery
from edge_agent.errors import BundleError, ConfigError, EdgeError
from edge_agent.frame import Image
from edge_agent.health import sd_notify
from edge_agent.metrics import MetricsServer
from edge_agent.pipeline import Identity, Pipeline
from edge_agent.publish import Connection, Will, check_files
from edge_agent.remote import Refused, Remote
from edge_agent.slots import Slots
from edge_agent.spool import Spool
from edge_agent.stages import Stages, prepare_stages, trust_of
from edge_agent.tend import Tender
from edge_agent.update import Record
from edge_agent.updater import Updater
from edge_agent.version import VERSION

__all__ = ["Agent", "Stages", "prepare_stages"]

_log = logging.getLogger(__name__)

_DRAIN_S = 8.0
_PICTURE_S = 5.0


class Agent:
    """Constructed when all that can be refused at the start has been checked."""

    def __init__(
        self,
        config: Config,
        frame_limit: int | None = None,
        *,
        allow_older: bool = False,
        at: Callable[[str], None] = lambda step: None,
    ) -> None:
        """Raises ConfigError, BundleError or CameraError. `at` is told each step of an update."""
        self.config = config
        self._began_s = time.monotonic()
        boot_id = uuid.uuid4().hex
        self._boot_id = boot_id
        self._broker: EmbeddedBroker | None = None
        self._inspecting = True
        self._saying = threading.Lock()
        self._files = contextlib.ExitStack()
        check_files(config.mqtt)
        self._lock = _Lock(config.state_dir)
        self.slots = Slots(config.state_dir, at=at)

        def load(folder: Path | None, older: bool) -> Stages:
            if folder is not None:
                return prepare_stages(config, allow_older=older, folder=folder)
            opened = self._unpacked(Path(config.agent.bundle))
            try:
                return prepare_stages(config, allow_older=older, folder=opened)
            except BundleError as error:
                # A temporary name says nothing to anybody.
                raise BundleError(str(error).replace(str(opened), config.agent.bundle)) from None

        running = updater.begin(config, self.slots, load, allow_older=allow_older)
        self._stages = running.stages
        self._stages.log()
        self._record = self.slots.read()
        try:
            self._put_together(boot_id, frame_limit)
        except EdgeError:
            updater.spare(self.slots)  # refused for something else than the bundle
            raise
        self._updater = Updater(
            config=config,
            slots=self.slots,
            line=self.pipeline,
            running=running,
            load=load,
            changed=self._update_went_on,
            at=at,
        )
        self._inspecting_s = 0.0

    def _unpacked(self, bundle: Path) -> Path:
        """Its folder: of a packed bundle one that lasts as long as the agent, which copies it."""
        return self._files.enter_context(parcel.opened(bundle, trust_of(self.config)))

    def _put_together(self, boot_id: str, frame_limit: int | None) -> None:
        config = self.config
        metrics: MetricsServer | None = None
        if config.health.metrics_port:
            metrics = MetricsServer(config.health.metrics_host, config.health.metrics_port)
        manifest = self._stages.bundle.manifest
        camera = open_camera(
            config.camera,
            colour=3 in (manifest.gate.input.channels, manifest.segmenter.input.channels),
            bundle_lines=self._stages.bundle.golden.frame_lines,
        )
        self._camera = _camera_state(camera.status)
        if config.mqtt.broker == "embedded":
            self._broker = EmbeddedBroker(config.mqtt.port)
        # The same for every run of this agent: a broker then ends the connection of the one before,
        # and two agents of one name notice each other.
        client_id = config.topic_base.replace("/", "-")
        state_topic = f"{config.topic_base}/state"
        self._remote = Remote(
            config=config,
            boot_id=boot_id,
            line=_Line(self),
            say=lambda *what, **how: self._delivery.say(*what, **how),
        )
        listen_to = (state_topic, *self._remote.subscriptions)
        self._delivery = Delivery(
            open_spool=lambda: Spool(
                config.spool_file,
                config.queues.spool_bytes,
                history=config.queues.history,
            ),
            connect=lambda tell, mqtt311, will: Connection(
                config.mqtt, client_id, Will(state_topic, will), tell, mqtt311, listen_to
            ),
            topic_base=config.topic_base,
            state=self.state(),
            max_drafts=config.queues.messages,
            replay_file=replay.path(config.state_dir),
            window=config.mqtt.window,
            # amqtt speaks nothing newer.
            mqtt311=self._broker is not None or config.mqtt.protocol == "3.1.1",
            on_incoming=self._remote.receive,
        )
        self.pipeline = Pipeline(
            config=config,
            models=self._stages.models,
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
        self._tender = Tender(
            config,
            self._delivery,
            marks_s=lambda: self.pipeline.progress_s,
            health=self.health,
            bundle=lambda: self._stages.ref,
            metrics=metrics,
        )

    def state(self) -> events.StateDocument:
        """As things are now; delivery makes of it what is said when we are gone."""
        return events.StateDocument(
            boot_id=self._boot_id,
            state="online",
            agent_version=VERSION,
            bundle=self._stages.ref,
            camera=self._camera,
            inspecting=self._inspecting,
            update=updater.state_of(self._record),
        )

    def _update_went_on(self, stages: Stages, record: Record) -> None:
        """Told by the update's thread."""
        self._stages, self._record = stages, record
        self._say_state()

    def inspect(self, yes: bool) -> None:
        """From the next frame on; said in the state document."""
        if yes:
            self.pipeline.resume()
        else:
            self.pipeline.suspend("stopped by a command")
        self._inspecting = yes
        self._say_state()

    def _say_state(self) -> None:
        with self._saying:  # the last word of two threads is what is so now
            self._delivery.set_state(self.state())

    def run(self) -> dict[str, Any]:
        """Inspect until the camera ends, the limit is reached or a signal comes; the summary.

        Raises the CameraError that ended the run, after everything was delivered and closed.
        """
        if self._record.phase != "proving":
            versions.remember(self.config.state_dir, self._stages.bundle)
        with _signals(self.pipeline.stop):
            self._delivery.start()
            began = time.monotonic()
            self.pipeline.start()
            self._updater.start()
            if self._remote.subscriptions:
                self._remote.start()
            sd_notify("READY=1")
            while not self.pipeline.finished:
                time.sleep(0.05)
                self._tell_camera()
                self._tender.look(time.monotonic())
            self._updater.stop()
            self._remote.stop()
            self.pipeline.join()
            self._inspecting_s = time.monotonic() - began
            sd_notify("STOPPING=1")
            self._delivery.set_health(msgspec.json.encode(self.health()))
            self._delivery.stop(_DRAIN_S)
            self._delivery.join()
        self._updater.join(_DRAIN_S)
        updater.spare(self.slots)
        self._tender.close()
        if self._broker:
            self._broker.close()
        self._files.close()
        self._lock.release()
        if self.pipeline.failure:
            raise self.pipeline.failure
        return self.summary()

    def _tell_camera(self) -> None:
        """The state document, when the camera's state has changed."""
        camera = _camera_state(self.pipeline.camera.status)
        if camera != self._camera:
            self._camera = camera
            self._say_state()

    def health(self) -> events.HealthDocument:
        tally, delivered = self.pipeline.tally, self._delivery.counts()
        gaps = tally.gaps()
        gaps |= delivered.loss_gaps
        return events.HealthDocument(
            boot_id=self._boot_id,
            time=events.utc(time.time_ns()),
            uptime_s=round(time.monotonic() - self._began_s, 3),
            frames_captured=tally.captured,
            frames_inspected=tally.inspected,
            frames_suspect=tally.suspect,
            frames_defective=tally.defective,
            frames_in_work=tally.in_work,
            lines_captured=tally.lines_captured,
            lines_inspected=tally.lines_inspected,
            lines_in_work=tally.lines_in_work,
            gaps=gaps,
            gap_lines=tally.gap_lines(),
            gaps_of_unknown_length=tally.gaps_of_unknown_length,
            camera=_camera_health(self.pipeline.camera),
            events_spooled=delivered.events_spooled,
            events_published=delivered.events_published,
            messages_pending=delivered.messages_pending,
            messages_dropped=delivered.messages_dropped,
            messages_refused=delivered.messages_refused,
            alarms=delivered.alarms,
            spool=delivered.spool,
            latency=tally.times(),
        )

    def summary(self) -> dict[str, Any]:
        """The health document at the end, with the rate and what ran."""
        document: dict[str, Any] = json.loads(msgspec.json.encode(self.health()))
        rate = document["frames_inspected"] / self._inspecting_s if self._inspecting_s else 0.0
        return document | {
            "agent_version": VERSION,
            "bundle": json.loads(msgspec.json.encode(self._stages.ref)),
            "inspecting_s": round(self._inspecting_s, 3),
            "frames_per_second": round(rate, 2),
        }


def _camera_state(status: CameraStatus) -> events.CameraState:
    return events.CameraState(
        state=status.state,
        reason=status.reason,
        detail=status.detail,
        since=events.utc(status.since_utc_ns),
    )


def _camera_health(camera: Camera) -> events.CameraHealth:
    status, counts = camera.status, camera.counts
    return events.CameraHealth(
        state=status.state,
        reason=status.reason,
        losses=counts.losses,
        blocks_taken=counts.blocks_taken,
        blocks_missing=counts.blocks_missing,
        blocks_repeated=counts.blocks_repeated,
        blocks_late=counts.blocks_late,
        blocks_useless=counts.blocks_useless,
        packets_lost=counts.packets_lost,
        packets_resent=counts.packets_resent,
    )


class _Line:
    """What a command over MQTT can do to the agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def status(self) -> dict[str, Any]:
        return {
            "state": msgspec.to_builtins(self._agent.state()),
            "health": msgspec.to_builtins(self._agent.health()),
            "coil": self._agent.pipeline.coil,
        }

    def picture(self) -> tuple[int, Image]:
        frame = self._agent.pipeline.next_frame(_PICTURE_S)
        if frame is None:
            raise Refused(f"picture: no frame within {_PICTURE_S:.0f} s; does the strip move?")
        return frame.frame_id, frame.image

    def set_coil(self, coil: str) -> None:
        self._agent.pipeline.set_coil(coil)

    def start(self) -> None:
        self._agent.inspect(True)

    def stop(self) -> None:
        self._agent.inspect(False)

    def stage(self, folder: Path) -> str:
        record = staging.stage(self._agent.config, self._agent.slots, folder)
        return record.candidate.sha256 if record.candidate else ""


class _Lock:
    """One agent per state directory: two would share a spool.

    A disk that fails is no mistake of whoever named it, and no reason not to inspect.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / "agent.lock").open("w")
        except OSError as error:
            if error.errno in (errno.EROFS, errno.ENOSPC, errno.EIO):
                _log.error("%s: %s; going on without it", folder, error.strerror)
                return
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
        if self._file:
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
