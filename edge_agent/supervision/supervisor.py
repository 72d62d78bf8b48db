"""Supervisor, run by the main thread: watchdog, status and health.

Status goes to systemd, the status file and the metrics, health to MQTT. The line runs without any.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
from collections.abc import Callable

import msgspec

from edge_agent.config.config import Config
from edge_agent.delivery.delivery import Delivery
from edge_agent.delivery.inbox import Inbox
from edge_agent.messages import events
from edge_agent.messages import health as messages_health
from edge_agent.supervision import status_file
from edge_agent.supervision.metrics import MetricsServer
from edge_agent.supervision.systemd import sd_notify, watchdog_s
from edge_agent.supervision.watchdog import Watchdog
from edge_agent.version import VERSION

_log = logging.getLogger(__name__)

_STATUS_S = 5.0
"""Longest interval of the status file; a shorter health interval applies to it too."""


class Supervisor:
    """Supervisor of the stages; call `look` often from one thread, `close` at the end."""

    def __init__(
        self,
        config: Config,
        delivery: Delivery,
        inbox: Inbox,
        *,
        marks_s: Callable[[], dict[str, float]],
        health: Callable[[], messages_health.HealthDocument],
        bundle: Callable[[], events.BundleRef],
        metrics: MetricsServer | None,
    ) -> None:
        self._config, self._metrics = config, metrics
        self._delivery, self._inbox = delivery, inbox
        self._stages_s, self._health, self._bundle = marks_s, health, bundle
        self._watchdog = Watchdog(
            watchdog_s(),
            say=lambda: sd_notify("WATCHDOG=1"),
            dump=lambda: faulthandler.dump_traceback(sys.stderr, all_threads=True),
            restart_publisher=inbox.restart_publisher,
        )
        self._status_s = min(config.health.interval_s, _STATUS_S)
        self._next_status = self._next_health = 0.0
        self._process = status_file.here()
        self._failed = False

    def look(self, now_s: float) -> None:
        """Check the stages' progress; publish status and health when due or when a stage stalls."""
        changed = self._watchdog.look(self._marks_s(), now_s)
        if not changed and now_s < self._next_status:
            return
        self._next_status = now_s + self._status_s
        document = self._health()
        self._tell(document, now_s)
        if now_s >= self._next_health:
            self._next_health = now_s + self._config.health.interval_s
            self._inbox.set_health(msgspec.json.encode(document))

    def close(self) -> None:
        """Remove the status file; the metrics server is closed by its owner."""
        status_file.remove(self._config.status_file)

    def _marks_s(self) -> dict[str, float]:
        """Return the monotonic time at which each stage last advanced, in seconds."""
        return {
            **self._stages_s(),
            "spool": self._delivery.progress_s,
            "publisher": self._delivery.publisher_progress_s,
        }

    def _tell(self, health: messages_health.HealthDocument, now_s: float) -> None:
        """Publish the status; log only the first of several write errors."""
        stuck = self._watchdog.stuck
        sd_notify(
            f"STATUS={health.frames_inspected} frames inspected, "
            f"{health.frames_defective} defective, {sum(health.gaps.values())} gaps"
            + (f"; {', '.join(stuck)} stands still" if stuck else "")
        )
        config, (process_id, process_start) = self._config, self._process
        document = status_file.AgentStatus(
            process_id=process_id,
            process_start=process_start,
            agent=config.agent.name,
            site=config.agent.site,
            line=config.agent.line,
            agent_version=VERSION,
            bundle=self._bundle(),
            written_utc=health.time,
            until_monotonic_s=round(now_s + 2 * self._status_s, 3),
            stages={stage: round(now_s - at, 3) for stage, at in self._marks_s().items()},
            stuck=stuck,
            publisher_restarts=self._watchdog.publisher_restarts,
            broker_connected=self._delivery.counts().connected,
            health=health,
        )
        if self._metrics:
            self._metrics.show(document)
        try:
            status_file.write(config.status_file, document)
            self._failed = False
        except OSError as error:
            if not self._failed:
                _log.error("health.status_file: %s: %s", config.status_file, error.strerror)
            self._failed = True
