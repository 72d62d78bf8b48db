"""Prometheus metrics over HTTP, off unless health.metrics_port is set.

The server answers one request at a time from text rendered before: a scrape never blocks the
agent, and a slow client is cut off after 5 s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from edge_agent.errors import ConfigError
from edge_agent.supervision.status_file import AgentStatus

_REQUEST_TIMEOUT_S = 5.0


class MetricsServer:
    """HTTP server of the metrics; raises ConfigError if the address is unavailable."""

    def __init__(self, host: str, port: int) -> None:
        self._text = b""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            """Handler of one request; only /metrics exists."""

            timeout = _REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                """Answer a scrape with the last rendered text."""
                if self.path != "/metrics":
                    self.send_error(404)
                    return
                text = owner._text
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                """Log nothing: there is a scrape every few seconds."""

            def version_string(self) -> str:
                """Return the Server header, without the version of Python."""
                return "linegate"

        try:
            self._server = _Server((host, port), Handler)
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(
                f"health.metrics_port: {host}:{port}: {why}; set another port, or 0 for no metrics"
            ) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        try:
            self._thread.start()
        except BaseException:
            self._server.server_close()
            raise

    def show(self, status: AgentStatus) -> None:
        """Render a status, for the scrapes from now on."""
        self._text = render(status)

    def close(self) -> None:
        """Stop the server and release the address."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(TCPServer):
    """TCP server; HTTPServer would look up its host name, and a line may have no DNS."""

    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: a client that disconnects is not a fault of the agent."""


def render(status: AgentStatus) -> bytes:
    """Return a status in the Prometheus text format."""
    return generate_latest(_Families(status))


class _Families:
    """Collector of one status; times in seconds, the Prometheus base unit."""

    def __init__(self, status: AgentStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield each metric family."""
        status, health = self._status, self._status.health
        yield InfoMetricFamily("linegate", "What runs.", _info(status))
        for name, text, count in (
            ("frames_captured", "Frames the camera counted", health.frames_captured),
            ("frames_inspected", "Frames inspected", health.frames_inspected),
            ("frames_suspect", "Frames the gate passed on", health.frames_suspect),
            ("frames_defective", "Frames with a defect", health.frames_defective),
            ("lines_captured", "Lines the camera counted", health.lines_captured),
            ("lines_inspected", "Lines inspected", health.lines_inspected),
            ("events_spooled", "Events handed to the spool", health.events_spooled),
            ("events_published", "Events the broker acknowledged", health.events_published),
            ("messages_dropped", "Messages dropped and declared", health.messages_dropped),
            ("publisher_restarts", "Restarts inside the agent", status.publisher_restarts),
        ):
            yield CounterMetricFamily(f"linegate_{name}", f"{text}.", count)
        streaming = health.camera.state == "streaming"
        for name, text, value in (
            ("uptime_seconds", "Since the start", health.uptime_s),
            ("messages_pending", "Messages not acknowledged yet", health.messages_pending),
            ("broker_connected", "1 while connected", status.broker_connected),
            ("camera_streaming", "0 while lost or impaired", streaming),
            ("spool_on_disk", "0 while the spool is in memory", health.spool == "disk"),
        ):
            yield GaugeMetricFamily(f"linegate_{name}", f"{text}.", value)
        gaps = CounterMetricFamily("linegate_gaps", "Gaps declared.", labels=("reason",))
        for reason, count in health.gaps.items():
            gaps.add_metric((reason,), count)
        age = _stage_gauge("stage_age_seconds", "Since a stage came round.")
        stuck = _stage_gauge("stage_stuck", "1 while a stage stands still.")
        for stage, age_s in status.stages.items():
            age.add_metric((stage,), age_s)
            stuck.add_metric((stage,), stage in status.stuck)
        # A gauge: the agent provides quantiles, which the library's summary type does not support.
        latency = _stage_gauge(
            "latency_seconds", "Of the last 20,000 frames of a stage.", "quantile"
        )
        for stage, times in health.latency.items():
            for quantile, ms in (
                ("0.5", times.p50_ms),
                ("0.95", times.p95_ms),
                ("0.99", times.p99_ms),
            ):
                latency.add_metric((stage, quantile), ms / 1000)
        yield from (gaps, age, stuck, latency)


def _stage_gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"linegate_{name}", text, labels=("stage", *labels))


def _info(status: AgentStatus) -> dict[str, str]:
    bundle = status.bundle
    return {
        "agent": status.agent,
        "site": status.site,
        "line": status.line,
        "version": status.agent_version,
        "bundle": bundle.name,
        "bundle_version": str(bundle.version),
        "gate": bundle.gate,
        "segmenter": bundle.segmenter,
    }
