"""The published AsyncAPI document against what a real agent really says over a real broker."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from edge_agent import __main__ as edge_agent_main
from edge_agent.messages import asyncapi
from edge_agent.messages.schema import types
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_bytes())
    return document


def test_the_published_document_is_that_of_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edge_agent_main.main(["schema", "--asyncapi", "--out", str(tmp_path)]) == 0
    written = (tmp_path / "asyncapi.yaml").read_text(encoding="utf-8")
    assert written == (ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8")
    assert edge_agent_main.main(["schema", "--asyncapi"]) == 0
    assert capsys.readouterr().out == written


def test_every_topic_has_a_channel_an_operation_and_a_message(published: dict[str, Any]) -> None:
    names = {topic.replace(".", "_") for topic in types()} | {"evidence"}
    assert set(published["channels"]) == set(published["components"]["messages"]) == names
    used = {one["channel"]["$ref"].rpartition("/")[2] for one in published["operations"].values()}
    assert used == names
    for channel in published["channels"].values():
        levels = re.findall(r"\{(\w+)\}", channel["address"])
        assert set(channel["parameters"]) == set(levels)


def test_all_references_lead_somewhere(published: dict[str, Any]) -> None:
    def refs(tree: Any) -> list[str]:
        if isinstance(tree, dict):
            own = [tree["$ref"]] if isinstance(tree.get("$ref"), str) else []
            return own + [ref for value in tree.values() for ref in refs(value)]
        return [ref for one in tree for ref in refs(one)] if isinstance(tree, list) else []

    found = refs(published)
    assert len(found) > 10
    for ref in found:
        at: Any = published
        for part in ref.removeprefix("#/").split("/"):
            at = at[part]
        assert at


@pytest.mark.system
def test_live_traffic_is_what_the_document_says(
    tmp_path: Path,
    published: dict[str, Any],
    mosquitto: Any,
    subscriber: Callable[..., Any],
    frames: Path,
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
) -> None:
    folder = shutil.copytree(frames, tmp_path / "frames")
    (folder / "000000.png").write_bytes(b"no picture")  # becomes a gap
    heard = subscriber(mosquitto.port)
    config = config_file(
        mosquitto.url,
        camera={"kind": "folder", "path": str(folder)},
        health={"interval_s": 0.5},
        evidence={"pictures": True},
    )
    assert agent(config).ended().code == 0
    heard.wait("state", 2)
    channels = {
        name: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(one["address"])) + r"\Z")
        for name, one in published["channels"].items()
    }
    seen = set()
    for message in heard.messages:
        (name,) = (n for n, pattern in channels.items() if pattern.match(message.topic))
        if name == "evidence":
            assert message.payload.startswith(b"\xff\xd8")  # a JPEG, as the document says
            assert published["components"]["messages"][name]["contentType"] == "image/jpeg"
        else:
            _check(published, name, message.json())
        seen.add(name)
    assert seen == {"event", "gap", "state", "health", "evidence"}
    # Who comes later hears what is said to be retained, and nothing else.
    late = subscriber(mosquitto.port)
    late.wait("state")
    late.wait("health")
    retained = {
        one["channel"]["$ref"].rpartition("/")[2]
        for one in published["operations"].values()
        if one["bindings"]["mqtt"]["retain"]
    }
    assert {message.kind for message in late.messages} == retained & seen


def _check(published: dict[str, Any], name: str, payload: Any) -> None:
    message = published["components"]["messages"][name]
    schema = {**message["payload"], "components": published["components"]}
    jsonschema.Draft202012Validator(schema).validate(payload)


def test_a_message_that_is_not_so_would_be_noticed(published: dict[str, Any]) -> None:
    for name in ("event", "gap", "state", "health"):
        with pytest.raises(jsonschema.ValidationError):
            _check(published, name, {})


def test_the_document_is_made_of_the_types() -> None:
    schemas = asyncapi.document()["components"]["schemas"]
    assert schemas["Defect"]["properties"]["box_px"] == {"$ref": "#/components/schemas/BoxPx"}
