"""The JSON Schemas of all messages, generated from their types."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from edge_agent.messages.commands import COMMANDS, Reply
from edge_agent.messages.events import CloudEvent, DefectEvent, GapEvent
from edge_agent.messages.health import HealthDocument
from edge_agent.messages.state import StateDocument


def types() -> dict[str, Any]:
    """What is said on each topic below the agent's, by the topic's name."""
    return {
        "event": CloudEvent[DefectEvent],
        "gap": CloudEvent[GapEvent],
        "state": StateDocument,
        "health": HealthDocument,
        "reply": Reply,
        **{f"command.{name}": kind for name, kind in COMMANDS.items()},
    }


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) per topic, by the topic's name."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | tidied(msgspec.json.schema(kind)) for name, kind in types().items()}


def tidied(schema: Any) -> Any:
    """A schema as it is published.

    Docstrings without their indentation, which Python strips from 3.13 on only. A field that has
    but one value is always written: msgspec takes its default for leave to leave it out.
    """
    if isinstance(schema, dict):
        found = {
            key: inspect.cleandoc(value)
            if key == "description" and isinstance(value, str)
            else tidied(value)
            for key, value in schema.items()
        }
        properties = found.get("properties")
        if isinstance(properties, dict) and "required" in found:
            fixed = [n for n, p in properties.items() if len(p.get("enum", ())) == 1]
            found["required"] = [n for n in properties if n in fixed or n in found["required"]]
        return found
    return [tidied(one) for one in schema] if isinstance(schema, list | tuple) else schema
