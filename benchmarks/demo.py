"""make demo: the whole product on one machine, from the trained models to alerts on a broker.

Each part is the command a user would type, in its own process: edge-agent simulate, edge-export,
edge-calibrate, edge-agent broker, watch and run. The simulated truth shows the missed defects.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import msgspec

from benchmarks import pictures
from edge_agent.messages.events import GAP_TYPE, CloudEvent, DefectEvent
from edge_agent.simulation.rolled_steel import SteelStrip
from workshop.datasets.simulated import FRAME_LINES, MIN_DEFECT_PX

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "training" / "reference"
_KEY = "demo.key"
_CONFIG = """\
# Written by make demo. Any key can be changed for one run: --set camera.seed=8
[agent]
bundle = "{bundle}"
trusted_keys = ["{key}.pub"]
name = "demo"
site = "works"
line = "pickling"
coil = "C-0001"
state_dir = "{state}"

[camera]
kind = "simulated"
seed = {seed}

[strip]
pixel_width_mm = 0.25
line_length_mm = 0.25

[mqtt]
broker = "mqtt://127.0.0.1:{port}"
protocol = "3.1.1"   # the embedded broker speaks nothing newer
"""


@dataclass(slots=True)
class FrameVerdicts:
    """Frame numbers by result."""

    hits: list[int] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    false_alerts: list[int] = field(default_factory=list)
    slivers: int = 0


class DemoError(Exception):
    """Failure of one of the demo's commands."""

    pass


def _tool(*words: str | Path) -> None:
    """Run one of our commands to its end and show its output; raise DemoError if it fails."""
    command = [sys.executable, "-m", *(str(w) for w in words)]
    print(f"$ {' '.join(command[2:])}", flush=True)
    if subprocess.run(command, check=False, cwd=ROOT).returncode:  # noqa: S603  our own commands
        raise DemoError(f"{words[0]} failed")


def make_bundle(out: Path) -> Path:
    """Export, calibrate and sign a bundle, unless one exists of the same models and code."""
    bundle, work = out / "bundle", out / "work"
    sources = [MODELS / "gate.keras", MODELS / "segmenter.keras", ROOT / "constraints.txt"]
    for package in ("edge_agent", "export", "calibration", "workshop"):
        sources += sorted((ROOT / package).rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = work / "made-from"
    if stamp.is_file() and stamp.read_text() == digest and (bundle / "bundle.sig").is_file():
        print(f"bundle: {bundle} is up to date (make clean removes it)")
        return bundle
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(bundle, ignore_errors=True)
    simulate = ("edge_agent", "simulate", "--strips", "12")
    _tool(*simulate, "--seed", "4000", "--frames", "120", "--out", work / "samples")
    _tool(*simulate, "--seed", "3000", "--frames", "600", "--out", work / "labelled")
    networks = ("--gate", MODELS / "gate.keras", "--segmenter", MODELS / "segmenter.keras")
    _tool("export", "convert", *networks, "--samples", work / "samples", "--out", bundle)
    least = ("--min-defect-px", str(MIN_DEFECT_PX))
    _tool("calibration", "gate", "--bundle", bundle, "--data", work / "labelled", *least)
    _tool("export", "keygen", "--out", work / _KEY)
    _tool("export", "sign", bundle, "--key", work / _KEY)
    stamp.write_text(digest)
    return bundle


@contextlib.contextmanager
def _process(*words: str | Path, ready: str | None = None, **how: Any) -> Iterator[Any]:
    """Run one of our commands in the background; wait for `ready` on its stderr.

    It is ended by SIGTERM.
    """
    command = [sys.executable, "-m", *(str(w) for w in words)]
    print(f"$ {' '.join(command[2:])} &", flush=True)
    how["stderr"] = subprocess.PIPE if ready else None
    process = subprocess.Popen(command, cwd=ROOT, text=True, **how)  # noqa: S603  likewise
    try:
        while ready:
            text = process.stderr.readline() if process.stderr else ""
            if not text:
                raise DemoError(f"{' '.join(command[2:4])} ended before it was ready")
            if ready in text:
                break
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr:
            process.stderr.close()


def run_line(out: Path, bundle: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Run broker, subscriber and agent; return the agent's summary and the received messages."""
    record, summary = out / "received.jsonl", out / "work" / "agent.json"
    state = out / "work" / "state"
    for old in (record, summary):
        old.unlink(missing_ok=True)
    shutil.rmtree(state, ignore_errors=True)
    port = _free_port()
    config = out / "line.toml"
    key = out / "work" / _KEY
    config.write_text(_CONFIG.format(bundle=bundle, key=key, state=state, seed=seed, port=port))
    url = f"mqtt://127.0.0.1:{port}"
    with (
        _process("edge_agent", "broker", "--port", str(port), ready="broker on"),
        _process("edge_agent", "watch", "--broker", url, "--record", record, ready="subscribed"),
        _process(
            "edge_agent", "run", "--config", config, "--summary", summary, stdout=subprocess.DEVNULL
        ) as agent,
    ):
        _wait(agent, seconds)
        agent.send_signal(signal.SIGTERM)
        if agent.wait(timeout=60) or not summary.is_file():
            raise DemoError(f"edge-agent run ended with exit code {agent.returncode}")
        result: dict[str, Any] = json.loads(summary.read_text())
        # Messages that the broker has acknowledged may not have reached the subscriber yet.
        until = time.monotonic() + 5
        expected = result["events_published"] + sum(result["gaps"].values())
        while len(_lines(record)) < expected and time.monotonic() < until:
            time.sleep(0.1)
    return result


def _wait(agent: subprocess.Popen[str], seconds: float) -> None:
    """Wait for the agent; `seconds` include its start, about two of them to verify the bundle."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and agent.poll() is None:
        time.sleep(0.1)


def sort_frames(
    strip: SteelStrip, frames: int, alerted: set[int], not_inspected: set[int]
) -> FrameVerdicts:
    """Compare the alerts with the truth of the strip, frame by frame."""
    result = FrameVerdicts()
    for frame_id in range(frames):
        if frame_id in not_inspected:
            continue
        defect_px = int((strip.truth(frame_id * FRAME_LINES, FRAME_LINES) > 0).sum())
        if 0 < defect_px < MIN_DEFECT_PX:
            result.slivers += 1
        elif defect_px:
            (result.hits if frame_id in alerted else result.missed).append(frame_id)
        elif frame_id in alerted:
            result.false_alerts.append(frame_id)
    return result


def draw(out: Path, strip: SteelStrip, events: dict[int, DefectEvent], sort: FrameVerdicts) -> None:
    """Write annotated pictures of the found defects and a sheet of hits, misses, false alerts."""
    folder = out / "defects"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def picture(frame_id: int) -> pictures.Picture:
        first = frame_id * FRAME_LINES
        return pictures.annotate(
            strip.render(first, FRAME_LINES),
            events.get(frame_id),
            strip.truth(first, FRAME_LINES),
        )

    for frame_id in sort.hits[:40]:
        cv2.imwrite(str(folder / f"frame{frame_id:06d}.jpg"), picture(frame_id))
    groups = []
    for name, chosen in (
        ("hits", sort.hits[:12]),
        ("missed", sort.missed[:12]),
        ("false alerts", sort.false_alerts[:12]),
    ):
        total = len(getattr(sort, name.replace(" ", "_")))
        heading = f"{name}: {len(chosen)} of {total} shown (white: truth)"
        groups.append((heading, [(f"frame {i}", picture(i)) for i in chosen]))
    cv2.imwrite(str(out / "contact_sheet.jpg"), pictures.sheet(groups))


def demo(out: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Run the demo with its files in `out`; return its report."""
    bundle = make_bundle(out)
    result = run_line(out, bundle, seconds, seed)
    events: dict[int, DefectEvent] = {}
    not_inspected = set()
    received = 0
    for text in _lines(out / "received.jsonl"):
        if msgspec.json.decode(text)["type"] == GAP_TYPE:
            not_inspected.add(msgspec.json.decode(text)["data"]["frame_id"])
            continue
        event = msgspec.json.decode(text, type=CloudEvent[DefectEvent]).data
        events[event.frame_id] = event
        received += 1
    strip = SteelStrip(seed)
    sort = sort_frames(strip, result["frames_captured"], set(events), not_inspected)
    draw(out, strip, events, sort)
    total = result["latency"]["total"]
    summary = {
        "frames": result["frames_captured"],
        "defective_frames": len(sort.hits) + len(sort.missed),
        "alerted": len(sort.hits),
        "missed": len(sort.missed),
        "false_alerts": len(sort.false_alerts),
        "slivers_not_judged": sort.slivers,
        "events_published": result["events_published"],
        "events_received": received,
        "gaps": sum(result["gaps"].values()),
        "latency_p50_ms": total["p50_ms"],
        "latency_p99_ms": total["p99_ms"],
        "frames_per_second": result["frames_per_second"],
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.is_file() else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(argv: list[str] | None = None) -> int:
    """Run the demo from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="of inspection (default 30)")
    parser.add_argument("--seed", type=int, default=7, help="of the strip (default 7)")
    parser.add_argument("--out", type=Path, default=ROOT / "demo" / "out")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        summary = demo(args.out.resolve(), args.seconds, args.seed)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"pictures: {args.out}/defects, {args.out}/contact_sheet.jpg")
    print(json.dumps(summary))
    return 0 if summary["events_received"] == summary["events_published"] else 1


if __name__ == "__main__":
    sys.exit(main())
