"""Progress: a bar on a terminal, lines elsewhere."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from workshop import progress

_LOOP = (
    "from workshop import progress, terminal\n"
    "with terminal.quiet('x'):\n"
    "    for _ in progress.each(range(30), 'judging', 'frame', total=30): pass\n"
    "    progress.say('a line')\n"
)


def _on_terminal(command: list[str]) -> tuple[int, str]:
    """What a person sees who types the command: both streams on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    # A new one has no columns.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: nobody writes to it any more
                break
            if not part:
                break
            seen += part
    os.close(ours)
    return process.returncode, seen.decode()


def test_a_terminal_has_a_bar() -> None:
    code, seen = _on_terminal([sys.executable, "-c", _LOOP])
    assert code == 0
    assert "\rjudging:   0%|" in seen
    assert "\rjudging: 100%|" in seen
    assert "30/30" in seen
    assert "a line\n" in seen


def test_elsewhere_a_loop_is_a_line() -> None:
    done = subprocess.run([sys.executable, "-c", _LOOP], capture_output=True, text=True, check=True)
    assert done.stderr == "judging: 30 of 30 frames\na line\n"


def test_the_real_thing_on_a_terminal(tiny_bundle: Path) -> None:
    words = ["latency", str(tiny_bundle), "--samples", "3", "--warm-up", "1", "--threads", "1"]
    code, seen = _on_terminal([sys.executable, "-m", "benchmarks", *words])
    assert code == 0
    assert "\rtiming: 100%|" in seen
    assert "8/8" in seen
    assert "XNNPACK" not in seen


def test_steps_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.counted(2, "export", "step") as bar:
        bar.note("looking")
        bar.step("gate onnx-float32")
        bar.step("gate onnx-int8")
    said = "export: 1 of 2 steps: gate onnx-float32\nexport: 2 of 2 steps: gate onnx-int8\n"
    assert capsys.readouterr() == ("", said)


def test_a_long_loop_says_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.counted(100, "training", "step", done=10, kept=False) as bar:
        for _ in range(90):
            now[0] += 1
            bar.update()
    assert capsys.readouterr().err.splitlines() == [
        f"training: {k} of 100 steps" for k in (40, 70, 100)
    ]


def test_part_of_a_step_and_what_is_short_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert [*progress.each("ab", "looking", "image", total=2, kept=False)] == ["a", "b"]
    assert [*progress.each("ab", "looking", "image", total=2, shown=False)] == ["a", "b"]
    assert capsys.readouterr() == ("", "")
