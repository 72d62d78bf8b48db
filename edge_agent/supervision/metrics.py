"""The status as Prometheus reads it, over HTTP; off unless health.metrics_port is given.

The text format has been stable since 2014 and what we say in it is a page of code: a library would
be one more thing on every box. Requests are answered one after the other from a text made before
they came: who reads cannot make the agent wait, and a reader who dawdles is cut off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any

from edge_agent.errors import ConfigError
from edge_agent.supervision.status_file import AgentStatus

_REQUEST_TIMEOUT_S = 5.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """Listening once constructed. Raises ConfigError when the address cannot be had."""

    def __init__(self, host: str, port: int) -> None:
        self._text = b""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                if self.path != "/metrics":
                    self.send_error(404)
                    return
                text = owner._text
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                """A scrape every few seconds is no news."""

            def version_string(self) -> str:
                return "linegate"

        try:
            self._server = _Server((host, port), Handler)
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(
                f"health.metrics_port: {host}:{port}: {why}; set another port, or 0 for no metrics"
            ) from None
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def show(self, status: AgentStatus) -> None:
        self._text = "".join(f"{line}\n" for line in render(status)).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(TCPServer):
    """Not HTTPServer: that one asks a name server for our name, and a line may have none."""

    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who hung up is no error of ours."""


def render(status: AgentStatus) -> Iterator[str]:
    """The lines of the exposition format, times in seconds as its users expect."""
    for name, kind, text, samples in _families(status):
        yield f"# HELP linegate_{name} {text}."
        yield f"# TYPE linegate_{name} {kind}"
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels.items())
            yield f"linegate_{name}{f'{{{inner}}}' if inner else ''} {value!r}"


_Family = tuple[str, str, str, list[tuple[dict[str, str], float]]]


def _families(status: AgentStatus) -> Iterator[_Family]:
    health = status.health
    yield "info", "gauge", "What runs", [(_info(status), 1)]
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
        yield f"{name}_total", "counter", text, [({}, count)]
    for name, text, value in (
        ("uptime_seconds", "Since the start", health.uptime_s),
        ("messages_pending", "Messages not acknowledged yet", health.messages_pending),
        ("broker_connected", "1 while connected", int(status.broker_connected)),
        ("camera_streaming", "0 while lost or impaired", int(health.camera.state == "streaming")),
        ("spool_on_disk", "0 while the spool is in memory", int(health.spool == "disk")),
    ):
        yield name, "gauge", text, [({}, value)]
    reasons: list[tuple[dict[str, str], float]] = [
        ({"reason": reason}, count) for reason, count in health.gaps.items()
    ]
    yield "gaps_total", "counter", "Gaps declared", reasons
    ages = [({"stage": stage}, age_s) for stage, age_s in status.stages.items()]
    yield "stage_age_seconds", "gauge", "Since a stage came round", ages
    stuck = [({"stage": stage}, float(stage in status.stuck)) for stage in status.stages]
    yield "stage_stuck", "gauge", "1 while a stage stands still", stuck
    latency = [
        ({"stage": stage, "quantile": quantile}, ms / 1000)
        for stage, times in health.latency.items()
        for quantile, ms in (("0.5", times.p50_ms), ("0.95", times.p95_ms), ("0.99", times.p99_ms))
    ]
    yield "latency_seconds", "gauge", "Of the last 20,000 frames of a stage", latency


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


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
