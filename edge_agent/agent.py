"""Agent: builds the parts, starts them, supervises a run and closes them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.bundle import archive, version_history
from edge_agent.camera import open_camera
from edge_agent.config.config import Config
from edge_agent.delivery.connection_events import Will
from edge_agent.delivery.delivery import Delivery
from edge_agent.delivery.embedded_broker import EmbeddedBroker
from edge_agent.delivery.inbox import Inbox
from edge_agent.delivery.mqtt_connection import Connection, check_files
from edge_agent.delivery.spool import replay
from edge_agent.delivery.spool.spool import Spool
from edge_agent.errors import BundleError, EdgeError
from edge_agent.inspection.models import LoadedBundle, prepare_stages, trust_of
from edge_agent.messages import health as messages_health
from edge_agent.pipeline.event_builder import AgentIdentity
from edge_agent.pipeline.pipeline import Pipeline
from edge_agent.remote.actions import AgentActions
from edge_agent.remote.commands import CommandReceiver
from edge_agent.supervision.health_document import summary, vitals
from edge_agent.supervision.instance_lock import InstanceLock
from edge_agent.supervision.metrics import MetricsServer
from edge_agent.supervision.state_document import StateKeeper
from edge_agent.supervision.supervisor import Supervisor
from edge_agent.supervision.systemd import sd_notify
from edge_agent.update import startup
from edge_agent.update.bundle_store import BundleStore
from edge_agent.update.updater import Updater

__all__ = ["Agent", "LoadedBundle", "prepare_stages"]

_DRAIN_S = 8.0


class Agent:
    """Agent whose configuration, bundle and camera have been checked at construction.

    Each part goes onto one ExitStack as soon as it is opened: a start that fails half way, the end
    of a run and `close` all close the same parts, in reverse order.
    """

    def __init__(
        self,
        config: Config,
        frame_limit: int | None = None,
        *,
        allow_older: bool = False,
    ) -> None:
        """Open everything that can fail at the start.

        Args:
            config: The checked configuration.
            frame_limit: Number of frames after which the run ends; None is no limit.
            allow_older: Permit a bundle version below the highest that ran here.

        Raises:
            ConfigError: A file, port or folder of the configuration cannot be used.
            BundleError: No bundle can be loaded.
            CameraError: The camera cannot be opened.
        """
        self._config = config
        self._began_s = time.monotonic()
        self._boot_id = uuid.uuid4().hex
        self._inbox = Inbox(config.queues.messages)
        with contextlib.ExitStack() as opened:
            check_files(config.mqtt)
            opened.callback(InstanceLock(config.state_dir).release)
            self._unpacked = opened.enter_context(contextlib.ExitStack())
            self._slots = BundleStore(config.state_dir)
            runs = startup.begin(config, self._slots, self._load, allow_older=allow_older)
            opened.push(self._spare_unless_crashed)
            runs.stages.log()
            self._record = self._slots.read()
            self._put_together(opened, runs.stages, frame_limit)
            self._updater = Updater(
                config=config,
                slots=self._slots,
                line=self._pipeline,
                running=runs,
                load=self._load,
                changed=self._state_keeper.update_went_on,
            )
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close an agent that is not run; `run` closes it itself."""
        self._opened.close()

    def _spare_unless_crashed(self, _kind: object, error: BaseException | None, _: object) -> None:
        """Do not count an orderly end or a refused start against an update's candidate."""
        if error is None or isinstance(error, EdgeError):
            startup.spare(self._slots)

    def _load(self, folder: Path | None, older: bool) -> LoadedBundle:
        """Load a bundle of the store, or for None the configured one. Raises BundleError."""
        config = self._config
        if folder is not None:
            return prepare_stages(config, allow_older=older, folder=folder)
        # Keep an unpacked archive as long as the agent runs, because an update copies it.
        unpacked = self._unpacked.enter_context(
            archive.opened(Path(config.agent.bundle), trust_of(config))
        )
        try:
            return prepare_stages(config, allow_older=older, folder=unpacked)
        except BundleError as error:
            # A temporary name is of no use in a message.
            raise BundleError(str(error).replace(str(unpacked), config.agent.bundle)) from None

    def _put_together(
        self, opened: contextlib.ExitStack, stages: LoadedBundle, frame_limit: int | None
    ) -> None:
        """Build the parts, in the order of their dependencies."""
        config = self._config
        metrics: MetricsServer | None = None
        if config.health.metrics_port:
            metrics = MetricsServer(config.health.metrics_host, config.health.metrics_port)
            opened.callback(metrics.close)
        manifest = stages.bundle.manifest
        camera = open_camera(
            config.camera,
            colour=3 in (manifest.gate.input.channels, manifest.segmenter.input.channels),
            bundle_lines=stages.bundle.golden.frame_lines,
        )
        # The pipeline's camera thread closes it first; a second close does nothing.
        opened.callback(camera.close)
        self._state_keeper = StateKeeper(
            self._boot_id,
            stages,
            self._record,
            camera.status,
            say=self._inbox.set_state,
        )
        if config.mqtt.broker == "embedded":
            opened.callback(EmbeddedBroker(config.mqtt.port).close)
        self._delivery = self._to_broker()
        self._pipeline = Pipeline(
            config=config,
            models=stages.models,
            camera=camera,
            delivery=self._delivery,
            identity=AgentIdentity(
                agent=config.agent.name,
                site=config.agent.site,
                line=config.agent.line,
                coil=config.agent.coil,
                boot_id=self._boot_id,
            ),
            frame_limit=frame_limit,
        )
        self._remote = CommandReceiver(
            config=config,
            boot_id=self._boot_id,
            line=AgentActions(config, self._slots, self._pipeline, self._state_keeper, self.health),
            say=self._inbox.say,
        )
        self._supervisor = Supervisor(
            config,
            self._delivery,
            self._inbox,
            marks_s=lambda: self._pipeline.progress_s,
            health=self.health,
            bundle=lambda: self._state_keeper.stages.ref,
            metrics=metrics,
        )
        opened.callback(self._supervisor.close)

    def _to_broker(self) -> Delivery:
        """Build delivery: spool, broker link and topics."""
        config = self._config
        # The same client id in every run: the broker then closes the connection of an earlier run,
        # and two agents with the same name disconnect each other, so that the mistake is noticed.
        client_id = config.topic_base.replace("/", "-")
        state_topic = f"{config.topic_base}/state"
        return Delivery(
            inbox=self._inbox,
            open_spool=lambda: Spool(
                config.spool_file,
                config.queues.spool_bytes,
                history=config.queues.history,
            ),
            connect=lambda tell, mqtt311, will: Connection(
                config.mqtt,
                client_id,
                Will(state_topic, will),
                tell,
                mqtt311,
                (state_topic, *self._remote.subscriptions),
            ),
            topic_base=config.topic_base,
            state=self._state_keeper.document(),
            replay_file=replay.path(config.state_dir),
            window=config.mqtt.window,
            # amqtt supports MQTT 3.1.1 only.
            mqtt311=config.mqtt.broker == "embedded" or config.mqtt.protocol == "3.1.1",
            # The commands are built after the delivery.
            on_incoming=lambda message: self._remote.receive(message),  # noqa: PLW0108
        )

    def run(self) -> dict[str, Any]:
        """Inspect until the camera ends, the frame limit is reached or a signal arrives.

        Returns the summary of the run. Raises the CameraError that ended the run, after all
        messages were delivered and all parts closed.
        """
        with self._opened as opened:
            if self._record.phase != "proving":
                version_history.remember(self._config.state_dir, self._state_keeper.stages.bundle)
            began_s = self._start(opened)
            sd_notify("READY=1")
            while not self._pipeline.finished:
                time.sleep(0.05)
                self._state_keeper.camera_is(self._pipeline.camera.status)
                self._supervisor.look(time.monotonic())
            inspecting_s = time.monotonic() - began_s
            if self._pipeline.failure:
                raise self._pipeline.failure
        return summary(self.health(), self._state_keeper.stages.ref, inspecting_s)

    def _start(self, opened: contextlib.ExitStack) -> float:
        """Start the threads, and put the end of each onto the stack.

        Returns the monotonic time in seconds at which inspection began.
        """
        for thread in (self._updater, self._remote):
            opened.callback(_join, thread)
        opened.enter_context(_signals(self._pipeline.stop))
        self._delivery.start()
        opened.callback(self._end_delivery)
        began_s = time.monotonic()
        # If its second thread fails to start, the first one runs already and must be stopped.
        opened.callback(self._pipeline.stop)
        self._pipeline.start()
        opened.callback(self._end_pipeline)
        self._updater.start()
        opened.callback(self._updater.stop)
        if self._remote.subscriptions:
            self._remote.start()
            opened.callback(self._remote.stop)
        return began_s

    def _end_pipeline(self) -> None:
        self._pipeline.stop()
        self._pipeline.join()

    def _end_delivery(self) -> None:
        sd_notify("STOPPING=1")
        self._inbox.set_health(msgspec.json.encode(self.health()))
        self._delivery.stop(_DRAIN_S)
        self._delivery.join()

    def health(self) -> messages_health.HealthDocument:
        """Return the health document of this moment."""
        return vitals(
            self._boot_id,
            time.monotonic() - self._began_s,
            self._pipeline.tally,
            self._pipeline.camera,
            self._delivery.counts(),
        )


def _join(thread: threading.Thread) -> None:
    """Wait for a stopped thread, at most `_DRAIN_S`; ignore one that never started."""
    if thread.ident is not None:
        thread.join(_DRAIN_S)


@contextlib.contextmanager
def _signals(stop: Any) -> Iterator[None]:
    """End the run in good order on SIGTERM and SIGINT.

    Do nothing outside the main thread, where Python cannot set signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, lambda *_: stop()) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
