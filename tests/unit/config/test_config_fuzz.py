"""100,000 configurations and more: a Config or a ConfigError of one line, never anything else.

Random changes of a good file, of its text and of its tree, and of what `--set` is given. An
example of hypothesis is a seed for many of them, since drawing each from hypothesis takes a hundred
times longer than parsing it. LINEGATE_FUZZ_EXAMPLES sets how many seeds each test draws.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import __main__ as program
from edge_agent.config.config import Config, load, parse
from edge_agent.config.loader import parse as parse_tree
from edge_agent.errors import ConfigError
from tests.support.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLES, BATCH = int(os.environ.get("LINEGATE_FUZZ_EXAMPLES", "4")), 250
SEEDS = st.integers(0, 2**64 - 1)
GOOD = (ROOT / "systemd" / "agent.toml").read_text(encoding="utf-8")

# Pieces of TOML, some of it none: numbers no type holds, text no file is named by, depth.
NASTY = (
    *("inf", "-inf", "nan", "+nan", "1e400", "-0.0", "0", "-1", "9" * 20, "9" * 400, "0x7f", "1_0"),
    *('""', '"\\u0000"', '"a\\u0000b"', '"\\n"', '"../x"', '"/dev/zero"', '"é"', "'x'", '"""a"""'),
    *(
        "true",
        "[]",
        "{}",
        "[1, [2]]",
        '{kind = "folder"}',
        "1979-05-27",
        "07:32:00",
        '"' + "x" * 5000 + '"',
    ),
    *(
        "[" * 400 + "]" * 400,
        "{a=" * 200,
        "[[camera]]",
        "[mqtt.broker]",
        "=",
        "#",
        '"\\ud800"',
        "\x00",
    ),
    *('"mqtt://[::1"', '"mqtt://h:99999"', '"mqtts://u:secret@h"', '"mqtt://' + "a" * 300 + '"'),
    *('"mqtt://a..b"', '"simulated"', '"embedded"', '["/etc/passwd"]', '["a\\u0000"]'),
)
VALUES: tuple[Any, ...] = (
    *(
        float("inf"),
        float("-inf"),
        float("nan"),
        0,
        -1,
        1 << 70,
        1e308,
        True,
        None,
        "",
        "\0",
        "a\0b",
    ),
    *("\udcff", "\n", "x" * 5000, [], [[]], {}, {"kind": "folder"}, ["\0"], [None], "simulated"),
    *("mqtt://h", "mqtts://[", "embedded", b"", object(), {"\0": 1}, {"a\nb": "\0"}),
)


def _one_line(error: ConfigError) -> None:
    text = str(error)
    assert len(text.splitlines()) == 1, repr(text)
    assert "secret" not in text
    text.encode(errors="backslashreplace")


def _put(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # ext4 waits for the disk where a file is cut and written anew
    path.write_text(text, encoding="utf-8")


def _changed_text(chance: random.Random) -> str:
    lines = GOOD.splitlines()
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        key, sign, _ = lines[at].partition("=")
        choice = chance.random()
        if choice < 0.6 and sign:
            lines[at] = f"{key}= {chance.choice(NASTY)}"
        elif choice < 0.7:
            lines[at] = chance.choice(NASTY)
        elif choice < 0.8:
            lines.insert(at, chance.choice(lines))
        elif choice < 0.9:
            del lines[at]
        else:
            where = chance.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:where] + chr(chance.randrange(0x250)) + lines[at][where:]
    return "\n".join(lines)


def _changed_tree(chance: random.Random, good: dict[str, Any]) -> dict[str, Any]:
    tree = copy.deepcopy(good)
    for _ in range(chance.randint(1, 3)):
        section = chance.choice([*tree, "", "\0", "x"])
        value = copy.deepcopy(chance.choice(VALUES))
        if chance.random() < 0.15 or not isinstance(tree.get(section), dict):
            tree[section] = value
        else:
            keys = [
                *tree[section],
                *Config.__struct_fields__,
                "metrics_port",
                "pixel_width_mm",
                "\0",
            ]
            tree[section][chance.choice(keys)] = value
    return tree


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "line.toml"


@given(seed=SEEDS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_file_is_a_config_or_one_line(scratch: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(BATCH):
        _put(scratch, _changed_text(chance))
        try:
            config = load(scratch)
        except ConfigError as error:
            _one_line(error)
        else:
            assert all(0 < one < 1e6 for one in _sizes(config))
            # What it names may be anything, but it can be asked for.
            for path in (config.agent.bundle, config.state_dir, config.status_file):
                with contextlib.suppress(OSError):  # a name may be too long, but not odd
                    Path(path).stat()


def _sizes(config: Config) -> list[float]:
    strip = config.strip
    return [one for one in (strip.pixel_width_mm, strip.line_length_mm) if one is not None]


@given(seed=SEEDS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_tree_is_a_config_or_one_line(seed: int) -> None:
    chance = random.Random(seed)
    good = tomllib.loads(GOOD)
    for _ in range(BATCH):
        try:
            parse(_changed_tree(chance, good), "line.toml")
        except ConfigError as error:
            _one_line(error)


@given(seed=SEEDS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_override_is_a_config_or_one_line(scratch: Path, seed: int) -> None:
    chance = random.Random(seed)
    _put(scratch, GOOD)
    names = (
        "agent.bundle",
        "camera.kind",
        "strip.line_length_mm",
        "mqtt.broker",
        "agent",
        "",
        "a.b.c",
    )
    for _ in range(BATCH // 5):
        sets = [
            f"{chance.choice(names)}{chance.choice(('=', '', ' = '))}{chance.choice(NASTY)}"
            for _ in range(chance.randint(1, 3))
        ]
        try:
            load(scratch, tuple(sets))
        except ConfigError as error:
            _one_line(error)


@given(seed=SEEDS)
@settings(max_examples=max(1, EXAMPLES // 5), deadline=None)
def test_the_command_refuses_what_it_does_not_take_without_a_traceback(
    scratch: Path, seed: int
) -> None:
    """`edge-agent check`, up to the bundle, which is not there: whatever is in a path by then."""
    chance = random.Random(seed)
    for _ in range(BATCH // 10):
        _put(scratch, _changed_text(chance))
        assert program.main(["check", "--config", str(scratch)]) == 2


def test_infinity_is_no_size_of_a_pixel(scratch: Path) -> None:
    _put(scratch, GOOD)
    with pytest.raises(ConfigError, match=r"strip\.pixel_width_mm: inf does not fit"):
        load(scratch, ("strip.pixel_width_mm=inf",))


@pytest.mark.parametrize("value", ["a\0b", "\udcff"])
def test_text_that_names_no_file_is_refused_where_it_stands(value: str) -> None:
    tree = tomllib.loads(GOOD)
    tree["agent"]["trusted_keys"] = [value]
    with pytest.raises(ConfigError, match=r"^line\.toml: agent\.trusted_keys: holds a NUL"):
        parse_tree(tree, Config, "line.toml")
