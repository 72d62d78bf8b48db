"""camera list, info, grab, watch, test: a camera put into service, before anything inspects."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.commands.common import Commands, Started, add, count, json_option
from edge_agent.errors import CameraError, ConfigError, EdgeError

if TYPE_CHECKING:
    from edge_agent.camera import Backend
    from edge_agent.camera.base import CameraCounts, StreamCounters
    from edge_agent.camera.commissioning import Tap
    from edge_agent.camera.features import NodeMap
    from edge_agent.camera.found import Found
    from edge_agent.camera.line_camera import LineCamera
    from edge_agent.config import Camera as CameraConfig
    from edge_agent.config import GenicamCamera
    from edge_agent.frame import Block, Frame

_WAIT_S = 10.0
_KINDS = ("genicam", "gentl", "v4l2", "rtsp", "gstreamer", "video", "folder", "simulated")
_KEYS = ("serial", "user_name", "mac", "ip", "cti", "device", "url", "path")
_SHOWN = (
    "DeviceVendorName",
    "DeviceModelName",
    "DeviceSerialNumber",
    "DeviceUserID",
    "DeviceFirmwareVersion",
    "DeviceTemperature",
    "DeviceScanType",
    "Width",
    "Height",
    "OffsetX",
    "PixelFormat",
    "ExposureTime",
    "Gain",
    "AcquisitionMode",
    "AcquisitionFrameRate",
    "AcquisitionLineRate",
    "TriggerSelector",
    "TriggerMode",
    "TriggerSource",
    "ScanLengthUnit",
    "EncoderSelector",
    "EncoderSourceA",
    "EncoderSourceB",
    "PayloadSize",
    "GevSCPSPacketSize",
    "GevSCPD",
    "GevHeartbeatTimeout",
    "PtpStatus",
    "ChunkModeActive",
)


def register(commands: Commands) -> None:
    text = "find, look at and test a camera"
    camera = commands.add_parser(
        "camera", help=text, description=text, epilog="example: edge-agent camera list"
    )
    acts = camera.add_subparsers(dest="camera_command", required=True)
    listed = add(acts, "list", "which cameras answer", "camera list --json", _list)
    listed.add_argument(
        "--cti",
        action="append",
        default=[],
        metavar="FILE",
        help="a GenTL producer, again for more (default: those in $GENICAM_GENTL64_PATH)",
    )
    info = add(
        acts,
        "info",
        "open a camera, set its features, read them back",
        "camera info --config line.toml",
        _info,
    )
    info.add_argument("--all", action="store_true", help="every feature, with its range")
    info.add_argument(
        "--read-only", action="store_true", help="set nothing; GigE: also beside a running agent"
    )
    grab = add(
        acts, "grab", "write frames as pictures", "camera grab --kind genicam -o one.png", _grab
    )
    grab.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="PNG, TIFF...")
    grab.add_argument("--frames", type=count, default=1, metavar="N", help="as FILE-0001 and on")
    watch = add(
        acts,
        "watch",
        "rates, drops, exposure and focus, live",
        "camera watch --config line.toml",
        _watch,
        more="; Ctrl-C ends it. Focus: Brenner's measure, highest where the image is sharpest.",
    )
    watch.add_argument("--seconds", type=count, metavar="N", help="end after N seconds")
    watch.set_defaults(until_interrupted=True)
    test = add(
        acts,
        "test",
        "take blocks for a while and judge how they came",
        "camera test --config line.toml --seconds 60 --json",
        _test,
        more=". Exit codes: 0 all came complete, 1 not, 2 no camera.",
    )
    test.add_argument("--seconds", type=count, default=60, metavar="N", help="(default 60)")
    for one in (info, grab, watch, test):
        _camera_options(one)
    for one in (listed, info, grab, watch, test):
        json_option(one)


def _camera_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML; its [camera] is used")
    parser.add_argument("--kind", choices=_KINDS, help="instead of --config")
    for key in _KEYS:
        parser.add_argument(f"--{key.replace('_', '-')}", metavar="X", help=f"camera.{key}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="camera.features.Width=2048"
    )


def _camera_of(args: argparse.Namespace) -> CameraConfig:
    from edge_agent import settings
    from edge_agent.config import CameraFile

    # Quoted, so that a serial number stays the text that it is.
    given = {key: value for key in _KEYS if (value := getattr(args, key)) is not None}
    overrides = tuple(f"camera.{key}={json.dumps(value)}" for key, value in given.items())
    overrides += tuple(args.set)
    if args.config:
        if args.kind:
            raise ConfigError("--kind: is in the file of --config; give one of the two")
        return settings.load(args.config, CameraFile, overrides).camera
    if not args.kind:
        raise ConfigError("--config or --kind: give one; `edge-agent camera list` shows cameras")
    tree = {"camera": {"kind": args.kind}}
    return settings.override(tree, CameraFile, overrides, "edge-agent camera").camera


# list


def _list(args: argparse.Namespace) -> None:
    import msgspec

    found, trouble = _all_cameras(args.cti)
    if args.json:
        print(msgspec.json.encode(found).decode())
    else:
        for one in found:
            note = f"  ({one.note})" if one.note else ""
            print(f"{one.kind} {one.transport or '-'}: {one}{note}")
        if not found:
            print("no camera answers")
    for line in trouble:
        print(f"edge-agent: {line}", file=sys.stderr)


def _all_cameras(ctis: list[str]) -> tuple[list[Found], list[str]]:
    from edge_agent.camera import gentl, gvcp, viva
    from edge_agent.camera.found import Found

    found: list[Found] = []
    trouble: list[str] = []
    own = gvcp.interfaces()
    try:
        for one in viva.devices():
            foreign = one.transport == "gige" and gvcp.home(one.ip, own) is None
            note = "in another subnet than this host" if foreign else one.note
            found.append(_with_note(one, note))
    except CameraError as error:
        trouble.append(str(error))
    folders = os.environ.get("GENICAM_GENTL64_PATH", "").split(os.pathsep)
    searched = [str(path) for folder in folders if folder for path in Path(folder).glob("*.cti")]
    for cti in ctis or sorted(searched):
        try:
            found += [_with_note(one, cti) for one in gentl.devices(cti)]
        except CameraError as error:
            if ctis:
                raise
            trouble.append(str(error))
    for path in sorted(Path("/sys/class/video4linux").glob("video*")):
        with contextlib.suppress(OSError):
            model = (path / "name").read_text(encoding="utf-8", errors="replace").strip()
            found.append(Found(kind="v4l2", model=model, device_id=f"/dev/{path.name}"))
    return found, trouble


def _with_note(one: Found, note: str) -> Found:
    import msgspec

    return msgspec.structs.replace(one, note=note)


# info


def _info(args: argparse.Namespace) -> None:
    from edge_agent.camera import open_backend
    from edge_agent.config import GenicamCamera

    config = _camera_of(args)
    if args.read_only and isinstance(config, GenicamCamera):
        _show(args, *_monitored(config, every=args.all))
        return
    if args.read_only and getattr(config, "features", None):
        raise ConfigError("--read-only: only a genicam camera can be looked at so; leave it out")
    backend = open_backend(config)
    try:
        opened = getattr(backend, "opened", None)
        if opened is None:
            block = _first_block(backend)
            shown = {
                "kind": args.kind or "",
                "pixel_format": block.pixel_format,
                "width_px": block.width_px,
                "height_px": block.line_count,
            }
            _show(args, shown, [])
        else:
            nodes = backend.nodes  # type: ignore[attr-defined]  # who has `opened` has these
            _show(args, _builtins(opened), _features(nodes, every=args.all))
    finally:
        backend.close()


def _monitored(config: GenicamCamera, *, every: bool) -> tuple[dict[str, Any], list[Any]]:
    from edge_agent.camera import viva

    camera, found = viva.connect(config, monitor=True)
    try:
        rows = _features(viva.VivaNodes(camera), every=every)
        return {"camera": _builtins(found), "packet_size": viva.packet_size(camera)}, rows
    finally:
        camera.close()


def _features(nodes: NodeMap, *, every: bool) -> list[Any]:
    from edge_agent.camera.features import Node

    names = nodes.names() if every else [name for name in _SHOWN if nodes.node(name)]
    read = [nodes.node(name) for name in names]
    return [one for one in read if isinstance(one, Node) and one.kind != "other"]


def _first_block(backend: Backend) -> Block:
    end_s = time.monotonic() + _WAIT_S
    while time.monotonic() < end_s:
        block = backend.grab(0.5)
        if block is not None:
            return block
    raise CameraError(_silent())


def _show(args: argparse.Namespace, opened: dict[str, Any], rows: list[Any]) -> None:
    if args.json:
        features = {
            one.name: {
                "value": one.value,
                "unit": one.unit,
                "writable": one.writable,
                "minimum": one.minimum,
                "maximum": one.maximum,
                "entries": list(one.entries),
            }
            for one in rows
        }
        print(json.dumps(opened | {"features": features}))
        return
    for key, value in opened.items():
        if key == "camera":
            print("camera: " + ", ".join(f"{k} {v}" for k, v in value.items() if v))
        elif key == "settings":
            for one in value:
                print(f"set {one['name']} = {one['wanted']}, reads {one['value']} {one['unit']}")
        else:
            print(f"{key}: {value}")
    for one in rows:
        print(f"{one.name:<28} {_value(one.value)} {one.unit} {_allowed(one)}".rstrip())


def _value(value: Any) -> str:
    return "-" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def _allowed(one: Any) -> str:
    if one.kind == "enumeration":
        return f"({', '.join(one.entries)})"
    if one.minimum is None or one.maximum is None:
        return ""
    return f"({one.minimum:.15g} to {one.maximum:.15g})"


def _builtins(value: Any) -> dict[str, Any]:
    import msgspec

    converted: dict[str, Any] = msgspec.to_builtins(value)
    return converted


# grab


def _grab(args: argparse.Namespace) -> None:
    import cv2

    suffixes = {".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".pgm", ".ppm"}
    if args.out.suffix.lower() not in suffixes:
        raise ConfigError(f"-o: {args.out}: give a picture's name, one of {', '.join(suffixes)}")
    if not args.out.resolve().parent.is_dir():
        raise ConfigError(f"-o: {args.out}: no such folder; make it first")
    written: list[dict[str, Any]] = []
    with _assembled(args) as (camera, _):
        for number, frame in zip(range(1, args.frames + 1), _frames(camera), strict=False):
            path = args.out
            if args.frames > 1:
                path = path.with_name(f"{path.stem}-{number:04d}{path.suffix}")
            image = frame.image
            picture = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            try:
                done = cv2.imwrite(str(path), picture)
            except cv2.error as error:
                raise Started(f"-o: {path}: {error.err}") from None
            if not done:
                raise Started(f"-o: {path}: cannot be written")
            written.append(
                {
                    "file": str(path),
                    "width_px": int(image.shape[1]),
                    "height_px": int(image.shape[0]),
                    "channels": 1 if image.ndim == 2 else 3,
                    "first_line": frame.first_line,
                    "encoder_count": frame.encoder_count,
                }
            )
    if len(written) < args.frames:
        raise Started(f"{len(written)} of {args.frames} frames, then the camera ended")
    if args.json:
        print(json.dumps(written))
        return
    for one in written:
        print(f"{one['file']}: {one['width_px']}x{one['height_px']}, {one['channels']} channel(s)")


def _frames(camera: LineCamera) -> Iterator[Frame]:
    from edge_agent.camera import EndOfStream
    from edge_agent.frame import Frame

    waited_s = time.monotonic()
    while time.monotonic() - waited_s < _WAIT_S:
        try:
            taken = camera.grab(0.5)
        except EndOfStream:
            return
        if isinstance(taken, Frame):
            yield taken
            waited_s = time.monotonic()
        elif taken is not None:
            print(f"gap: {taken.reason.value}: {taken.detail}", file=sys.stderr)
    raise Started(_silent())


def _silent() -> str:
    return (
        f"no frame within {_WAIT_S:.0f} s; if the camera waits for a trigger or the encoder, "
        "move the strip, else see TriggerMode in `edge-agent camera info`"
    )


# watch and test


class _Tapped:
    """A backend whose blocks are looked at on their way."""

    def __init__(
        self, backend: Backend, tap: Callable[[], Tap], tapped: Callable[[Backend], None]
    ) -> None:
        self._backend, self._tap = backend, tap
        self.live, self.first_block_id = backend.live, backend.first_block_id
        tap().forget_last()
        tapped(backend)

    def grab(self, timeout_s: float) -> Block | None:
        block = self._backend.grab(timeout_s)
        if block is not None:
            self._tap().take(block)
        return block

    def counters(self) -> StreamCounters:
        return self._backend.counters()

    def close(self) -> None:
        self._backend.close()


class _Session:
    """The chain of the agent up to its frames, with a tap behind the backend."""

    def __init__(self, config: CameraConfig) -> None:
        from edge_agent.camera import open_backend
        from edge_agent.camera.commissioning import Tap

        self.config, self.tap, self._new_tap = config, Tap(), Tap
        self.opened: Any = None
        self._open_backend = open_backend

    def begin_anew(self) -> None:
        """Rates of what comes from now on."""
        self.tap = self._new_tap()

    def open(self) -> Backend:
        return _Tapped(self._open_backend(self.config), lambda: self.tap, self._remember)

    def _remember(self, backend: Backend) -> None:
        self.opened = getattr(backend, "opened", None)


@contextlib.contextmanager
def _assembled(args: argparse.Namespace) -> Iterator[tuple[LineCamera, _Session]]:
    from edge_agent.camera.line_camera import LineCamera

    session = _Session(_camera_of(args))
    camera = LineCamera(session.open, check_images=False)
    try:
        yield camera, session
    finally:
        camera.close()


def _watch(args: argparse.Namespace) -> None:
    from edge_agent.camera import EndOfStream
    from edge_agent.frame import Frame

    with _assembled(args) as (camera, session):
        end_s = time.monotonic() + args.seconds if args.seconds else float("inf")
        while time.monotonic() < end_s:
            next_s, latest = min(end_s, time.monotonic() + 1), None
            session.begin_anew()
            try:
                while (left_s := next_s - time.monotonic()) > 0:
                    taken = camera.grab(min(0.2, left_s))
                    latest = taken if isinstance(taken, Frame) else latest
            except EndOfStream:
                return
            _print_state(args, camera.counts, session.tap, latest, camera.status.state)


def _print_state(
    args: argparse.Namespace, counts: CameraCounts, tap: Tap, frame: Frame | None, state: str
) -> None:
    from edge_agent.camera import commissioning

    light = commissioning.exposure(frame.image) if frame else None
    sharp = commissioning.focus(frame.image) if frame else None
    incomplete = sum(counts.blocks_useless.values())
    if args.json:
        row = {
            "state": state,
            "blocks_per_second": tap.blocks_per_second,
            "lines_per_second": tap.lines_per_second,
            "blocks_missing": counts.blocks_missing,
            "blocks_incomplete": incomplete,
            "packets_lost": counts.packets_lost,
            "packets_resent": counts.packets_resent,
            "focus": sharp,
            "exposure": _builtins(light) if light else None,
        }
        print(json.dumps(row), flush=True)
        return
    text = (
        f"{time.strftime('%H:%M:%S')} {state} {_rate(tap.blocks_per_second)} blocks/s "
        f"{_rate(tap.lines_per_second)} lines/s, missing {counts.blocks_missing} "
        f"incomplete {incomplete}"
    )
    if light:
        text += (
            f" | mean {light.mean:.0f} p1 {light.p1} p99 {light.p99} "
            f"sat {100 * light.saturated_share:.1f} % [{light.bars}]"
        )
    if sharp is not None:
        text += f" | focus {sharp:.4g}"
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
    else:
        print(text, flush=True)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _test(args: argparse.Namespace) -> None:
    import msgspec

    from edge_agent.camera import EndOfStream
    from edge_agent.camera.commissioning import judge, table

    with _assembled(args) as (camera, session):
        cpu_s, began_s = time.process_time(), time.monotonic()
        end_s, shown_s = began_s + args.seconds, began_s
        with contextlib.suppress(EndOfStream):
            while (left_s := end_s - time.monotonic()) > 0:
                camera.grab(min(0.2, left_s))
                if sys.stderr.isatty() and time.monotonic() - shown_s > 1:
                    shown_s = time.monotonic()
                    print(f"\r{left_s:.0f} s left ", end="", file=sys.stderr, flush=True)
        cpu_s, seconds = time.process_time() - cpu_s, time.monotonic() - began_s
        camera.drain()  # what was lost at the very end is counted too
        counts, live = camera.counts, camera.live
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    used, recommended, mtu = _packets(session)
    verdict = judge(
        session.tap,
        counts,
        seconds=seconds,
        cpu_s=cpu_s,
        packet_size=used,
        recommended_packet_size=recommended,
        mtu=mtu,
        receive_buffer_bytes=_kernel_number("/proc/sys/net/core/rmem_max") if used else None,
        live=live,
    )
    print(msgspec.json.encode(verdict).decode() if args.json else table(verdict))
    if not verdict.passed:
        raise Started("camera test: failed, see above")


def _packets(session: _Session) -> tuple[int | None, int | None, int | None]:
    """Packet size that was used, the largest that passes the way from the camera, the MTU."""
    import msgspec

    from edge_agent.camera import open_backend
    from edge_agent.config import GenicamCamera

    config, opened = session.config, session.opened
    if not isinstance(config, GenicamCamera) or opened is None or opened.packet_size is None:
        return None, None, None
    mtu = _kernel_number(f"/sys/class/net/{opened.camera.interface}/mtu")
    if config.packet_size == "auto":
        return opened.packet_size, opened.packet_size, mtu
    recommended = None
    with contextlib.suppress(EdgeError):
        probe = open_backend(msgspec.structs.replace(config, packet_size="auto"))
        recommended = probe.opened.packet_size  # type: ignore[attr-defined]
        probe.close()
    return opened.packet_size, recommended, mtu


def _kernel_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
