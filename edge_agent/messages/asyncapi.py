"""AsyncAPI 3.0 document of all topics and messages, generated from the message types."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from edge_agent.messages import schema
from edge_agent.version import VERSION

_BASE = "{root}/{site}/{line}/{agent}"
_LEVELS = {
    "root": "mqtt.root of the agent's configuration, linegate unless changed",
    "site": "agent.site",
    "line": "agent.line",
    "agent": "agent.name",
}
_RETAINED = frozenset(("state", "health", "coil"))
_ABOUT = """\
What an agent says, with QoS 1, at least once. Drop duplicates by (agent, boot_id, seq); seq rises
within a boot_id. A message with replayed: true is older than the connection it came over. Unknown
fields may be added within schema version 1; ignore them."""


def document() -> dict[str, Any]:
    """Build the AsyncAPI document as plain dicts and lists.

    `#/components/schemas` holds every type once; each channel refers to its own.
    """
    kinds = schema.types()
    tops, components = msgspec.json.schema_components(
        kinds.values(), ref_template="#/components/schemas/{name}"
    )
    messages, channels, operations = {}, {}, {}
    for (topic, kind), payload in zip(kinds.items(), tops, strict=True):
        name = topic.replace(".", "_")
        heard = topic.startswith("command.")
        about = _summary(kind)
        messages[name] = {
            "name": name,
            "summary": about,
            "contentType": "application/json",
            "payload": payload,
        }
        channels[name] = {
            "address": f"{_BASE}/{topic.replace('.', '/')}",
            "description": about,
            "parameters": _parameters(),
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        }
        operations[f"{'hear' if heard else 'say'}_{name}"] = {
            "action": "receive" if heard else "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "bindings": _bindings(topic),
        }
    about = "A frame as a picture: behind the event that names it, or as a command asked for."
    messages["evidence"] = {"name": "evidence", "summary": about, "contentType": "image/jpeg"}
    channels["evidence"] = {
        "address": f"{_BASE}/evidence/{{evidence}}",
        "description": about,
        "parameters": _parameters(evidence="the event's field of that name, or the reply's topic"),
        "messages": {"evidence": {"$ref": "#/components/messages/evidence"}},
    }
    operations["say_evidence"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/evidence"},
        "bindings": _bindings("evidence"),
    }
    found: dict[str, Any] = schema.tidied(
        {
            "asyncapi": "3.0.0",
            "info": {"title": "linegate edge agent", "version": VERSION, "description": _ABOUT},
            "defaultContentType": "application/json",
            "channels": channels,
            "operations": operations,
            "components": {"messages": messages, "schemas": components},
        }
    )
    return found


def as_yaml() -> str:
    """Return the AsyncAPI document as YAML text, keys sorted."""
    import yaml

    text: str = yaml.safe_dump(document(), sort_keys=True, width=100, allow_unicode=True)
    return "# Made by: edge-agent schema --asyncapi --out docs\n" + text


def _parameters(**more: str) -> dict[str, Any]:
    return {key: {"description": text} for key, text in (_LEVELS | more).items()}


def _bindings(topic: str) -> dict[str, Any]:
    return {"mqtt": {"qos": 1, "retain": topic in _RETAINED, "bindingVersion": "0.2.0"}}


def _summary(kind: Any) -> str:
    """Return the first line of the type's docstring; for a CloudEvent, of its data type."""
    arguments = getattr(kind, "__args__", None)
    return (inspect.getdoc(arguments[0] if arguments else kind) or "").partition("\n")[0]
