"""One run of the agent: put together, keep alive, take down, sum up."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.bundle import archive, version_history
from edge_agent.camera import open_camera
from edge_agent.config.config import Config
from edge_agent.delivery.connection_events import Will
from edge_agent.delivery.delivery import Delivery
from edge_agent.delivery.embedded_broker import EmbeddedBroker
from edge_agent.delivery.mqtt_connection import Connection, check_files
from edge_agent.delivery.spool import replay
from edge_agent.delivery.spool.spool import Spool
from edge_agent.errors import BundleError, EdgeError
from edge_agent.inspection.models import LoadedBundle, prepare_stages, trust_of
from edge_agent.messages import health as messages_health
from edge_agent.pipeline.pipeline import AgentIdentity, Pipeline
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
        self._config = config
        self._began_s = time.monotonic()
        self._boot_id = uuid.uuid4().hex
        self._broker: EmbeddedBroker | None = None
        self._files = contextlib.ExitStack()
        check_files(config.mqtt)
        self._lock = InstanceLock(config.state_dir)
        self._slots = BundleStore(config.state_dir, at=at)
        runs = startup.begin(config, self._slots, self._load, allow_older=allow_older)
        runs.stages.log()
        self._record = self._slots.read()
        try:
            self._put_together(runs.stages, frame_limit)
        except EdgeError:
            startup.spare(self._slots)  # refused for something else than the bundle
            raise
        self._updater = Updater(
            config=config,
            slots=self._slots,
            line=self._pipeline,
            running=runs,
            load=self._load,
            changed=self._state_keeper.update_went_on,
            at=at,
        )

    def _load(self, folder: Path | None, older: bool) -> LoadedBundle:
        config = self._config
        if folder is not None:
            return prepare_stages(config, allow_older=older, folder=folder)
        opened = self._unpacked(Path(config.agent.bundle))
        try:
            return prepare_stages(config, allow_older=older, folder=opened)
        except BundleError as error:
            # A temporary name says nothing to anybody.
            raise BundleError(str(error).replace(str(opened), config.agent.bundle)) from None

    def _unpacked(self, bundle: Path) -> Path:
        """Its folder: of a packed bundle one that lasts as long as the agent, which copies it."""
        return self._files.enter_context(archive.opened(bundle, trust_of(self._config)))

    def _put_together(self, stages: LoadedBundle, frame_limit: int | None) -> None:
        config = self._config
        metrics: MetricsServer | None = None
        if config.health.metrics_port:
            metrics = MetricsServer(config.health.metrics_host, config.health.metrics_port)
        manifest = stages.bundle.manifest
        camera = open_camera(
            config.camera,
            colour=3 in (manifest.gate.input.channels, manifest.segmenter.input.channels),
            bundle_lines=stages.bundle.golden.frame_lines,
        )
        self._state_keeper = StateKeeper(
            self._boot_id,
            stages,
            self._record,
            camera.status,
            say=lambda document: self._delivery.set_state(document),
        )
        if config.mqtt.broker == "embedded":
            self._broker = EmbeddedBroker(config.mqtt.port)
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
            say=self._delivery.say,
        )
        self._supervisor = Supervisor(
            config,
            self._delivery,
            marks_s=lambda: self._pipeline.progress_s,
            health=self.health,
            bundle=lambda: self._state_keeper.stages.ref,
            metrics=metrics,
        )

    def _to_broker(self) -> Delivery:
        config = self._config
        # The same for every run of this agent: a broker then ends the connection of the one before,
        # and two agents of one name notice each other.
        client_id = config.topic_base.replace("/", "-")
        state_topic = f"{config.topic_base}/state"
        return Delivery(
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
            max_drafts=config.queues.messages,
            replay_file=replay.path(config.state_dir),
            window=config.mqtt.window,
            # amqtt speaks nothing newer.
            mqtt311=self._broker is not None or config.mqtt.protocol == "3.1.1",
            on_incoming=lambda message: self._remote.receive(message),
        )

    def run(self) -> dict[str, Any]:
        """Inspect until the camera ends, the limit is reached or a signal comes; the summary.

        Raises the CameraError that ended the run, after everything was delivered and closed.
        """
        if self._record.phase != "proving":
            version_history.remember(self._config.state_dir, self._state_keeper.stages.bundle)
        with _signals(self._pipeline.stop):
            self._delivery.start()
            began = time.monotonic()
            self._pipeline.start()
            self._updater.start()
            if self._remote.subscriptions:
                self._remote.start()
            sd_notify("READY=1")
            while not self._pipeline.finished:
                time.sleep(0.05)
                self._state_keeper.camera_is(self._pipeline.camera.status)
                self._supervisor.look(time.monotonic())
            self._updater.stop()
            self._remote.stop()
            self._pipeline.join()
            inspecting_s = time.monotonic() - began
            sd_notify("STOPPING=1")
            self._delivery.set_health(msgspec.json.encode(self.health()))
            self._delivery.stop(_DRAIN_S)
            self._delivery.join()
        self._updater.join(_DRAIN_S)
        startup.spare(self._slots)
        self._supervisor.close()
        if self._broker:
            self._broker.close()
        self._files.close()
        self._lock.release()
        if self._pipeline.failure:
            raise self._pipeline.failure
        return summary(self.health(), self._state_keeper.stages.ref, inspecting_s)

    def health(self) -> messages_health.HealthDocument:
        return vitals(
            self._boot_id,
            time.monotonic() - self._began_s,
            self._pipeline.tally,
            self._pipeline.camera,
            self._delivery.counts(),
        )


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
