"""A bundle tried in a process of its own: whatever it does there, we get one line on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_agent.bundle.reader import load
from edge_agent.frame import Frame, Image, LineSpan
from edge_agent.update.trial_process import (
    ArtifactPick,
    TrialBundle,
    TrialProcess,
    TrialProcessError,
    TrialRequest,
)

pytestmark = pytest.mark.system

PICKS = (
    ArtifactPick("gate-float32.onnx", "CPUExecutionProvider"),
    ArtifactPick("segmenter-float32.onnx", "CPUExecutionProvider"),
)


def side(folder: Path) -> TrialBundle:
    return TrialBundle(str(folder), load(folder).sha256)


def begin(running: Path, candidate: Path) -> TrialRequest:
    return TrialRequest(
        running=TrialBundle(str(running), load(running).sha256, *PICKS),
        candidate=side(candidate),
        precision="auto",
        threads=1,
        providers=("CPUExecutionProvider",),
    )


def frame(image: Image, frame_id: int = 1) -> Frame:
    return Frame(
        image=image,
        frame_id=frame_id,
        span=LineSpan(
            first_line=0,
            line_count=image.shape[0],
            captured_utc_ns=0,
            captured_monotonic_ns=0,
        ),
    )


def spotted() -> Image:
    image = np.full((256, 800), 128, np.uint8)
    image[100:140, 300:340] = 255
    return image


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path]) -> Path:
    """Finds nothing, and cannot judge what is bright."""
    return write_bundle(
        tmp_path_factory.mktemp("blind") / "bundle", version=2, scale=1.0, trap="raise"
    )


def test_both_bundles_judge_the_frames_they_are_shown(tiny_bundle: Path, blind: Path) -> None:
    with TrialProcess(begin(tiny_bundle, blind), lambda: None) as trial_process:
        ready = trial_process.ready()
        assert (ready.refusal, ready.gate and ready.gate.provider) == ("", PICKS[0].provider)
        for number in range(3):
            look = trial_process.look(frame(spotted(), number))
            assert look.frame_id == number
            assert (look.running.suspect, look.candidate.suspect) == (True, False)
            assert look.running.defects > 0
            assert look.candidate.defects == 0
            assert 0 == look.both_px < look.either_px
            assert min(look.running.judged_ms, look.candidate.judged_ms) > 0
        look = trial_process.look(frame(np.full((256, 800), 255, np.uint8)))
        assert look.running.error == ""
        assert look.candidate.error != ""
        assert not trial_process.look(frame(spotted())).candidate.error, "one error is not the end"


def test_a_bundle_that_changed_since_it_was_staged_is_not_run(tiny_bundle: Path) -> None:
    asked = begin(tiny_bundle, tiny_bundle)
    other = TrialRequest(
        running=asked.running,
        candidate=TrialBundle(str(tiny_bundle), "0" * 64),
        precision="auto",
        threads=1,
        providers=asked.providers,
    )
    with TrialProcess(other, lambda: None) as trial_process:
        assert "changed since it was staged" in trial_process.ready().refusal


def test_a_process_that_dies_is_said_to_have_crashed(tiny_bundle: Path) -> None:
    with TrialProcess(begin(tiny_bundle, tiny_bundle), lambda: None) as trial_process:
        assert trial_process.ready().refusal == ""
        os.kill(trial_process.pid, signal.SIGSEGV)
        with pytest.raises(TrialProcessError, match=r"crashed in its trial \(signal 11\)"):
            for _ in range(100):
                trial_process.look(frame(spotted()))


def test_a_process_that_hangs_is_not_waited_for(tiny_bundle: Path) -> None:
    with TrialProcess(begin(tiny_bundle, tiny_bundle), lambda: None) as trial_process:
        assert trial_process.ready().refusal == ""
        os.kill(trial_process.pid, signal.SIGSTOP)
        trial_process._stall_s = 0.5
        with pytest.raises(TrialProcessError, match="no answer for 0 s: it hangs"):
            trial_process.look(frame(spotted()))
        pid = trial_process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_who_waits_can_be_called_away(tiny_bundle: Path) -> None:
    class Enough(Exception):
        pass

    def go_on() -> None:
        raise Enough

    with (
        TrialProcess(begin(tiny_bundle, tiny_bundle), go_on) as trial_process,
        pytest.raises(Enough),
    ):
        trial_process.ready()


def test_bytes_that_are_no_answer_are_said_to_be_none(tiny_bundle: Path) -> None:
    with TrialProcess(begin(tiny_bundle, tiny_bundle), lambda: None) as trial_process:
        trial_process._exchange = lambda *_: b"\xff" * 9  # type: ignore[method-assign]
        with pytest.raises(TrialProcessError, match="invalid reply from the trial process"):
            trial_process.ready()


def test_the_process_ends_with_who_began_it(tiny_bundle: Path) -> None:
    """An agent that is killed leaves its end of the pipe closed."""
    with TrialProcess(begin(tiny_bundle, tiny_bundle), lambda: None) as trial_process:
        assert trial_process.ready().refusal == ""
        trial_process._connection.close()
        assert trial_process._process.wait(60) == 0
