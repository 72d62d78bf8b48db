"""Discovery: what is on the wire, and what only looks like an answer."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.camera.backends.genicam import gvcp

_LOOPBACK = gvcp.Interface("lo", ipaddress.IPv4Interface("127.0.0.1/8"))
_LINE = gvcp.Interface("eth0", ipaddress.IPv4Interface("192.168.7.1/24"))


def _answer(request_id: int = 7, status: int = 0, serial: bytes = b"4711") -> bytes:
    body = bytearray(248)
    body[10:16] = bytes.fromhex("00305310ab0c")
    body[36:40], body[52:56] = bytes((192, 168, 7, 20)), bytes((255, 255, 255, 0))
    body[72:76], body[104:109] = b"Acme", b"L4096"
    body[216 : 216 + len(serial)] = serial
    body[232:241] = b"strip-top"
    return struct.pack(">HHHH", status, 3, 248, request_id) + bytes(body)


def test_an_answer_is_read_by_its_fields() -> None:
    device = gvcp.decode(_answer(), 7)
    assert device is not None
    assert (device.serial, device.user_name) == ("4711", "strip-top")
    assert (device.mac, device.ip, device.netmask) == (
        "00:30:53:10:AB:0C",
        "192.168.7.20",
        "255.255.255.0",
    )
    assert (device.vendor, device.model) == ("Acme", "L4096")


@pytest.mark.parametrize(
    "answer", [b"", _answer(request_id=8), _answer(status=0x8006), _answer()[:-1]]
)
def test_what_is_no_answer_to_our_question_is_passed_over(answer: bytes) -> None:
    assert gvcp.decode(answer, 7) is None


def test_a_name_cannot_write_on_the_terminal() -> None:
    device = gvcp.decode(_answer(serial=b"a\x1b[2J\nb"), 7)
    assert device is not None
    assert device.serial == "a?[2J?b"


@given(st.binary(max_size=600))
def test_nothing_on_the_wire_raises(answer: bytes) -> None:
    gvcp.decode(answer, 7)
    gvcp.decode(_answer()[:8] + answer, 7)


def test_an_address_is_at_home_in_one_network() -> None:
    assert gvcp.home("192.168.7.20", [_LOOPBACK, _LINE]) is _LINE
    assert gvcp.home("192.168.8.20", [_LOOPBACK, _LINE]) is None
    assert gvcp.home("no address", [_LINE]) is None


def test_this_host_has_loopback() -> None:
    assert ("lo", ipaddress.IPv4Interface("127.0.0.1/8")) in [
        (one.name, one.address) for one in gvcp.interfaces()
    ]


def test_aravis_camera_is_found_with_its_serial_number(aravis: Callable[..., Any]) -> None:
    camera = aravis(serial="LINE-7")
    (device,) = gvcp.discover()
    assert (device.serial, device.vendor, device.ip) == ("LINE-7", "Aravis", "127.0.0.1")
    assert device.interface is not None
    assert device.interface.name == "lo"
    assert gvcp.answers("127.0.0.1")
    camera.kill()
    assert not gvcp.answers("127.0.0.1", 0.05)
    assert gvcp.discover(0.1) == []


def test_viva_camera_is_found_with_its_name(viva_camera: Callable[..., Any]) -> None:
    viva_camera()
    (device,) = gvcp.discover(only="lo")
    assert (device.user_name, device.mac) == ("FakeCamera", "DE:AD:BE:EF:CA:FE")
    assert gvcp.discover(0.1, only="eth-none") == []
