"""An agent on the simulated camera with everything around it failing, and what must hold then.

    python -m tests.support.chaos --seconds 1200 --seed 1      make chaos
    python -m tests.support.chaos --soak --seconds 1800        make soak

A real mosquitto stands behind our proxy. At random the agent is killed or asked to end, the broker
restarts, links are cut or half-open, acknowledgements late or lost, publishes refused, the disk
full. At the end, duplicates dropped by (agent, boot_id, seq):

- what the subscriber has is what was spooled, minus what gaps declare as dropped or refused;
- the order of seq holds per boot, but for messages that the broker refused at first;
- inspected + gaps = frames the camera made, in every run that ended in good order.

What was spooled is seen from outside, by reading the spool's file: seq rises by one, so the highest
number ever seen on the disk or by the subscriber says what there must be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.proxy import Proxy

_LOST_BY_THEIR_EVENTS = ("spool_overflow", "spool_loss", "refused")


class Disk:
    """A small one of its own where we may mount; otherwise a limit of the process stands for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "linegate-chaos", str(folder)]
        try:
            self.real = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            self.real = False

    def fill(self, pid: int) -> None:
        if not self.real:
            with contextlib.suppress(OSError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
            return
        with contextlib.suppress(OSError), (self.folder / "filler").open("ab", 0) as filler:
            while True:
                filler.write(bytes(4096))

    def free(self, pid: int) -> None:
        if not self.real:
            with contextlib.suppress(OSError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            return
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        if self.real:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


class Witness(threading.Thread):
    """Reads the spool's file beside the agent: the highest number of each boot that was there."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path, self._stop_it = path, threading.Event()
        self.highest: dict[str, int] = defaultdict(int)

    def run(self) -> None:
        while not self._stop_it.wait(0.1):
            self.look()

    def look(self) -> int:
        """How many are unsent."""
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=1)
            ) as reader:
                for boot, seq in reader.execute(
                    "SELECT boot_id, max(seq) FROM outbox GROUP BY boot_id"
                ):
                    self.highest[boot] = max(self.highest[boot], seq)
                sql = "SELECT count(*) FROM outbox WHERE state = 0"
                return int(reader.execute(sql).fetchone()[0])
        except sqlite3.Error:
            return -1

    def end(self) -> None:
        self._stop_it.set()
        self.join()


@dataclass
class Report:
    seed: int
    seconds: float
    disk: str
    spool_bytes: int
    faults: Counter[str] = field(default_factory=Counter)
    boots: int = 0
    clean_ends: int = 0
    received: int = 0
    duplicates: int = 0
    refused: int = 0
    declared: int = 0
    set_aside: int = 0
    late_after_refusal: int = 0
    frames: int = 0
    violations: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return self.__dict__ | {"faults": dict(self.faults)}


class Line:
    """The agent, its broker, the link between them and the subscriber behind it."""

    def __init__(self, folder: Path, seed: int, parts: Any, **queues: int) -> None:
        self.parts, self.seed = parts, seed
        self.disk = Disk(folder / "state")
        self.broker = parts.Mosquitto(folder / "mosquitto", ["allow_anonymous true"])
        self.broker.start()
        self.proxy = Proxy(self.broker.port)
        self.subscriber = parts.Subscriber(self.broker.port)
        self.config = folder / "line.toml"
        bundle = parts._write_bundle(folder / "bundle")
        limits = "".join(f"{key} = {value}\n" for key, value in queues.items())
        self.config.write_text(
            f'[agent]\nbundle = "{bundle}"\nstate_dir = "{folder / "state"}"\nthreads = 1\n'
            'unsigned_bundles = "allow"\n'
            f'[camera]\nkind = "simulated"\nseed = {seed}\nwidth_px = 800\ndefects_per_m = 15\n'
            f'[mqtt]\nbroker = "mqtt://127.0.0.1:{self.proxy.port}"\nkeepalive_s = 5\n'
            f"[queues]\n{limits}[health]\ninterval_s = 1\n",
            encoding="utf-8",
        )
        self.witness = Witness(folder / "state" / "spool.sqlite3")
        self.witness.start()
        self._log = (folder / "agent.log").open("ab")
        self._summary = folder / "summary.json"
        self.summaries: list[dict[str, Any]] = []
        self.bad_ends: list[str] = []
        self.start()

    def start(self) -> None:
        self._summary.unlink(missing_ok=True)
        command = [sys.executable, "-m", "edge_agent", "run", "--config", str(self.config)]
        self.agent = subprocess.Popen(
            [*command, "--summary", str(self._summary)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )

    def kill(self) -> None:
        self.agent.kill()
        self.agent.wait()
        self.witness.look()

    def end(self) -> None:
        """In good order."""
        self.agent.send_signal(signal.SIGTERM)
        try:
            code = self.agent.wait(60)
        except subprocess.TimeoutExpired:
            self.bad_ends.append("the agent did not end within 60 s of SIGTERM")
            self.kill()
            return
        self.witness.look()
        if code == 0 and self._summary.exists():
            self.summaries.append(json.loads(self._summary.read_bytes()))
        elif code != -signal.SIGTERM:  # before it had set its handlers
            self.bad_ends.append(f"the agent ended with {code}")

    def close(self) -> None:
        self.kill()
        self.witness.end()
        self.subscriber.close()
        self.proxy.close()
        self.broker.kill()
        self.disk.close()
        self._log.close()


def _faults(line: Line, draw: random.Random) -> dict[str, Callable[[], None]]:  # noqa: C901
    """Each breaks something, waits, and mends it."""

    def wait(low_s: float, high_s: float) -> None:
        time.sleep(draw.uniform(low_s, high_s))

    def kill() -> None:
        line.kill()
        wait(0, 1)
        line.start()

    def end() -> None:
        line.end()
        line.start()

    def broker_restarts() -> None:
        line.broker.stop()
        wait(0, 4)
        line.broker.start()

    def half_open() -> None:
        line.proxy.freeze()
        wait(2, 14)
        line.proxy.thaw()

    def late_acks() -> None:
        line.proxy.hold_acks()
        wait(1, 12)
        line.proxy.pass_acks()

    def lost_acks() -> None:
        line.proxy.drop_acks()
        wait(1, 3)
        line.proxy.pass_acks()
        wait(5, 11)

    def refuse_for_now() -> None:
        line.proxy.refuse(0x97, draw.randrange(1, 4))
        wait(1, 3)

    def refuse_for_good() -> None:
        line.proxy.refuse(draw.choice((0x87, 0x90, 0x99)), draw.randrange(1, 4))
        wait(1, 3)

    def full_disk() -> None:
        line.disk.fill(line.agent.pid)
        wait(3, 12)
        line.disk.free(line.agent.pid)

    def full_disk_then_kill() -> None:
        line.disk.fill(line.agent.pid)
        wait(1, 4)
        line.kill()
        line.disk.free(line.agent.pid)
        line.start()

    return {
        "kill -9": kill,
        "SIGTERM": end,
        "broker restarts": broker_restarts,
        "link cut": line.proxy.cut,
        "half-open link": half_open,
        "late acks": late_acks,
        "lost acks": lost_acks,
        "refused for now": refuse_for_now,
        "refused for good": refuse_for_good,
        "full disk": full_disk,
        "full disk, kill -9": full_disk_then_kill,
    }


def chaos(folder: Path, seed: int, seconds: float, say: Callable[[str], None] = print) -> Report:
    """Break things for `seconds`, each kind once at least; mend them, wait, judge."""
    draw = random.Random(seed)
    # One that overflows whenever the broker is away for seconds, or one that holds all.
    spool_bytes = draw.choice((256 << 10, 4 << 20))
    line = Line(folder, seed, spool_bytes=spool_bytes, history=50, messages=200)
    report = Report(seed, seconds, "tmpfs" if line.disk.real else "RLIMIT_FSIZE", spool_bytes)
    began = time.monotonic()
    try:
        faults = _faults(line, draw)
        time.sleep(4)
        bag: list[str] = []
        while time.monotonic() - began < seconds or len(report.faults) < len(faults):
            # Each kind once before any comes again: a short run tries them all.
            bag = bag or draw.sample(list(faults), len(faults))
            name = bag.pop()
            report.faults[name] += 1
            say(f"{time.monotonic() - began:7.1f} s  {name}")
            faults[name]()
            time.sleep(draw.uniform(0.5, 4))
            if line.agent.poll() is not None:
                report.violations.append(f"the agent ended by itself after {name}")
                line.start()
        line.proxy.refuse_no_more()
        _quieten(line, report)
        _judge(line, report)
    finally:
        line.close()
    return report


def _quieten(line: Line, report: Report) -> None:
    """No faults any more: all that is spooled arrives, without hands."""
    deadline = time.monotonic() + 120
    connected_at = time.monotonic()
    while time.monotonic() < deadline:
        if line.witness.look() == 0 and time.monotonic() - connected_at > 3:
            break
        # The camera goes on; pending is 0 only between two frames.
        time.sleep(0.02)
    line.end()
    pending = line.witness.look()
    if pending:
        report.violations.append(f"{pending} messages did not go out within 120 s of calm")
    last = -1
    while last != len(line.subscriber.messages):
        last = len(line.subscriber.messages)
        time.sleep(1.5)


def _judge(line: Line, report: Report) -> None:
    report.violations += line.bad_ends
    received: dict[str, set[int]] = defaultdict(set)
    declared: dict[str, set[int]] = defaultdict(set)
    refused = {(boot, seq) for boot, seq, _ in line.proxy.refused}
    newest: dict[str, int] = defaultdict(int)
    for data in line.subscriber.numbered():
        boot, seq = data["boot_id"], data["seq"]
        if seq in received[boot]:
            report.duplicates += 1
            continue
        received[boot].add(seq)
        if seq < newest[boot]:
            if (boot, seq) in refused and data["replayed"]:
                report.late_after_refusal += 1
            else:
                report.violations.append(f"{boot[:8]}: {seq} came after {newest[boot]}")
        newest[boot] = max(newest[boot], seq)
        dropped = data.get("dropped")
        report.set_aside += data.get("reason") == "refused"
        for one in dropped["ranges"] if dropped else ():
            declared[one["boot_id"]] |= set(range(one["first_seq"], one["last_seq"] + 1))
    boots = set(received) | set(line.witness.highest)
    for boot in boots:
        spooled = set(range(1, max(line.witness.highest[boot], newest[boot]) + 1))
        missing = spooled - received[boot] - declared[boot]
        report.declared += len(declared[boot] - received[boot])
        if missing:
            some = sorted(missing)[:10]
            report.violations.append(
                f"{boot[:8]}: {len(missing)} lost unsaid of {len(spooled)}: {some}"
            )
    report.boots = len(boots)
    report.refused = len(line.proxy.refused)
    report.received = sum(map(len, received.values()))
    _judge_frames(line, report)


def _judge_frames(line: Line, report: Report) -> None:
    report.clean_ends = len(line.summaries)
    if not line.summaries:
        report.violations.append("no run ended in good order")
    documents = [m.json() for m in line.subscriber.of("health")]
    for document in [*line.summaries, *documents]:
        gaps = sum(
            count
            for reason, count in document["gaps"].items()
            if reason not in _LOST_BY_THEIR_EVENTS
        )
        known = document["frames_inspected"] + gaps + document["frames_in_progress"]
        if known != document["frames_captured"]:
            report.violations.append(f"frames: {document}")
    for summary in line.summaries:
        report.frames += summary["frames_captured"]
        if summary["frames_in_progress"] or summary["frames_captured"] == 0:
            report.violations.append(f"frames in work at the end: {summary['frames_in_progress']}")


def soak(
    folder: Path, seed: int, seconds: float, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """No faults: memory and file descriptors of the agent over time, as slopes."""
    line = Line(folder, seed, history=200)
    samples: list[tuple[float, float, int]] = []
    try:
        time.sleep(15)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if line.agent.poll() is not None:
                raise SystemExit("the agent ended by itself")
            samples.append((time.monotonic() - began, *_size_of(line.agent.pid)))
            if len(samples) % 30 == 1:
                at, megabytes, files = samples[-1]
                say(f"{at:7.0f} s  {megabytes:.1f} MB  {files} files")
            time.sleep(2)
        line.end()
    finally:
        line.close()
    half = samples[len(samples) // 3 :]  # what grows at the start is caches
    return {
        "seconds": seconds,
        "samples": len(samples),
        "events": len(line.subscriber.of("event")),
        "memory_mb": [round(min(s[1] for s in half), 1), round(max(s[1] for s in half), 1)],
        "memory_slope_mb_per_h": round(_slope([(s[0], s[1]) for s in half]) * 3600, 2),
        "files": [min(s[2] for s in half), max(s[2] for s in half)],
        "files_slope_per_h": round(_slope([(s[0], float(s[2])) for s in half]) * 3600, 2),
    }


def _size_of(pid: int) -> tuple[float, int]:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _slope(points: list[tuple[float, float]]) -> float:
    """Least squares, per second."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="linegate-chaos-") as name:
        yield Path(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=None, help="(default: drawn, and printed)")
    parser.add_argument("--soak", action="store_true", help="no faults; slopes of memory and files")
    parser.add_argument("--keep", type=Path, help="a folder for logs, spool and broker")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if args.seed is None else args.seed
    print(f"seed {seed}, {args.seconds:.0f} s", flush=True)

    def say(text: str) -> None:
        print(text, flush=True)

    with _folder(args.keep) as folder:
        if args.soak:
            print(json.dumps(soak(folder, seed, args.seconds, say), indent=1))
            return 0
        report = chaos(folder, seed, args.seconds, say)
    print(json.dumps(report.json(), indent=1))
    print(f"seed {seed}: {len(report.violations)} violations")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
