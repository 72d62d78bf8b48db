"""edge-agent camera list, info, grab, watch, test: as processes, against cameras on the wire."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import genicam
import pytest
from viva_genicam.testing import FakeGigeCamera

from edge_agent.camera.backends.genicam.backend import GenicamBackend
from edge_agent.config.camera import GenicamCamera
from tests.support import fake_cameras
from tests.support.fake_cameras import LONG
from tests.support.paths import ROOT

VIKY = Path(genicam.__file__).with_name("viky.cti")
GIGE = ("--kind", "genicam", "--ip", "127.0.0.1")

pytestmark = pytest.mark.system


def camera(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", "camera", *map(str, words)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answer(*words: str | Path, **environment: str) -> Any:
    done = camera(*words, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(*words: str | Path) -> str:
    """The one line of a command that refuses before it starts."""
    done = camera(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    # What was set before the refusal is said too.
    *before, last = done.stderr.splitlines()
    assert all(line.startswith("INFO ") for line in before), done.stderr
    assert last.startswith("edge-agent: ")
    return last.removeprefix("edge-agent: ")


class TestGigeVision:
    def test_list_has_cameras_of_the_wire_and_of_producers(
        self, aravis: Callable[..., Any]
    ) -> None:
        aravis(serial="LINE-7")
        found = answer("list", GENICAM_GENTL64_PATH=str(VIKY.parent))
        (gige,) = (one for one in found if one["kind"] == "genicam")
        assert (gige["serial"], gige["ip"], gige["transport"]) == ("LINE-7", "127.0.0.1", "gige")
        assert [one["serial"] for one in found if one["kind"] == "gentl"] == ["0", "1", "2"]
        assert "serial LINE-7, 127.0.0.1" in camera("list").stdout

    def test_info_sets_features_and_reads_them_back(
        self, aravis: Callable[..., Any], tmp_path: Path
    ) -> None:
        aravis()
        config = tmp_path / "line.toml"
        config.write_text(
            '[camera]\nkind = "genicam"\nserial = "LINE-A"\n'
            '[camera.features]\nWidth = 800\nPixelFormat = "Mono16"\nExposureTimeAbs = 1234.0\n',
            encoding="utf-8",
        )
        shown = answer("info", "--config", config, "--set", "camera.features.Height=64")
        assert (shown["width_px"], shown["height_px"], shown["pixel_format"]) == (800, 64, "Mono16")
        assert [one["name"] for one in shown["settings"]] == [
            *("Width", "PixelFormat", "ExposureTimeAbs", "Height")
        ]
        width = shown["features"]["Width"]
        assert (width["value"], width["minimum"], width["maximum"]) == (800, 1, 2048)
        text = camera("info", "--config", config, "--all").stdout
        assert "set Width = 800, reads 800" in text
        assert "ExposureTimeAbs" in text

    def test_info_can_look_beside_a_running_agent(self, aravis: Callable[..., Any]) -> None:
        aravis()
        running = GenicamBackend(GenicamCamera(features={"Width": 640}))
        try:
            assert answer("info", *GIGE, "--read-only")["features"]["Width"]["value"] == 640
            assert running.grab(5) is not None
        finally:
            running.close()

    def test_grab_writes_what_the_camera_sends(
        self, aravis: Callable[..., Any], tmp_path: Path
    ) -> None:
        aravis()
        size = ("--set", "camera.features.Width=320", "--set", "camera.features.Height=48")
        written = answer("grab", *GIGE, *size, "-o", tmp_path / "one.png", "--frames", "2")
        assert [Path(one["file"]).name for one in written] == ["one-0001.png", "one-0002.png"]
        for one in written:
            image = cv2.imread(one["file"], cv2.IMREAD_UNCHANGED)
            assert image.shape == (48, 320)
            assert image.any()

    def test_watch_shows_rates_light_and_focus(self, aravis: Callable[..., Any]) -> None:
        aravis()
        done = camera("watch", *GIGE, "--seconds", "2", "--json")
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(rows) == 2
        assert rows[-1]["state"] == "streaming"
        assert rows[-1]["blocks_per_second"] > 0
        assert rows[-1]["lines_per_second"] > rows[-1]["blocks_per_second"]
        assert sum(rows[-1]["exposure"]["histogram"]) == pytest.approx(1, abs=0.001)
        assert rows[-1]["focus"] > 0

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (("features.Widht=1600",), "this camera has no such feature; did you mean Width"),
            (("features.Width=9999",), "camera.features.Width: 9999: out of range, 1 to 2048 now"),
            (("features.PixelFormat=Mono99",), "PixelFormat: Mono99: not one of BayerBG8"),
            (("chunks=EncoderValue",), "camera.chunks: "),
            (("chunks=['EncoderValue']",), "camera.chunks: EncoderValue: this camera has no such"),
        ],
    )
    def test_what_the_camera_does_not_take_is_one_line(
        self, aravis: Callable[..., Any], words: tuple[str, ...], text: str
    ) -> None:
        aravis()
        settings = [word for one in words for word in ("--set", f"camera.{one}")]
        assert text in refusal("info", *GIGE, *settings)


def test_the_verdict_is_pass_where_all_came_and_has_the_cost(
    viva_camera: Callable[..., fake_cameras.Camera],
) -> None:
    """The highest rate that this camera can send, in packets of 9000 bytes; the long form is 60 s.

    What the camera itself costs is not counted: it is a process of its own.
    """
    viva_camera(width=1600, height=256, fps=1000)
    seconds = "60" if LONG else "4"
    done = camera("test", *GIGE, "--set", "camera.packet_size=9000", "--seconds", seconds, "--json")
    print(done.stdout)
    verdict = json.loads(done.stdout)
    assert verdict["blocks_complete"] > 20
    # Every block that the camera counted came whole, or is counted as one that did not.
    lost = verdict["blocks_incomplete"] + verdict["blocks_missing"]
    assert verdict["passed"] == (lost == 0)
    assert done.returncode == (1 if lost else 0)
    assert verdict["packet_size"] == 9000
    assert verdict["recommended_packet_size"] >= 9000
    assert verdict["interval"]["clock"] == "camera"
    assert verdict["cpu_ms_per_block"] > 0
    if LONG:
        assert lost == 0
        assert verdict["cpu_ms_per_block"] < 3


@pytest.mark.usefixtures("gvcp_port")
def test_the_verdict_is_fail_where_packets_are_lost() -> None:
    never = [(block, 1) for block in range(3, 30, 3)]
    with FakeGigeCamera(width=640, height=64, fps=30, drop_packets=never, packet_resend=False):
        done = camera("test", *GIGE, "--seconds", "2")
    assert done.returncode == 1
    assert "verdict: fail" in done.stdout
    assert "packets or blocks are lost: see the switch and the cable" in done.stdout
    assert done.stderr.splitlines()[-1] == "edge-agent: camera test: failed, see above"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("info",), "--config or --kind: give one; `edge-agent camera list` shows cameras"),
        (("info", "--kind", "genicam", "--ip", "10.98.76.54"), "in another subnet than this host"),
        (("info", "--kind", "genicam", "--ip", "300.1.1.1"), "not an IPv4 address"),
        (("info", "--kind", "gentl", "--cti", VIKY), "3 cameras fit"),
        (("info", "--kind", "gentl", "--cti", "/none.cti"), "camera.cti: /none.cti: no such file"),
        (("list", "--cti", "/none.cti"), "camera.cti: /none.cti: no such file"),
        (("grab", "--kind", "simulated", "-o", "one.gif"), "-o: one.gif: give a picture's name"),
        (("grab", "--kind", "simulated", "-o", "/none/one.png"), "-o: /none/one.png: no such"),
        (("info", "--kind", "simulated", "--set", "camera.hight_px=2"), "camera.hight_px"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: tuple[str | Path, ...], text: str) -> None:
    assert text in refusal(*words)


def test_no_camera_at_this_address_is_refused_in_one_line() -> None:
    with fake_cameras.gvcp_port():
        line = refusal("test", *GIGE)
    assert line.startswith("camera.ip: 127.0.0.1: no such camera answers; found: no camera at all")
