"""JSON Schemas of all messages, generated from the message types."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from edge_agent.messages.commands import COMMANDS, Reply
from edge_agent.messages.events import CloudEvent, DefectEvent, GapEvent
from edge_agent.messages.health import HealthDocument
from edge_agent.messages.state import StateDocument


def types() -> dict[str, Any]:
    """Return the message type of each topic below the agent's, by topic name."""
    return {
        "event": CloudEvent[DefectEvent],
        "gap": CloudEvent[GapEvent],
        "state": StateDocument,
        "health": HealthDocument,
        "reply": Reply,
        **{f"command.{name}": kind for name, kind in COMMANDS.items()},
    }


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (2020-12) of each message, by topic name."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | tidied(msgspec.json.schema(kind)) for name, kind in types().items()}


def tidied(schema: Any) -> Any:
    """Return `schema` in its published form.

    Descriptions lose the indentation that Python strips from docstrings only from 3.13 on. A field
    with a single allowed value becomes required: it is always written, but msgspec lists a field
    with a default as optional.
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
