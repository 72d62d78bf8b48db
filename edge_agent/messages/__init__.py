"""Message types on the wire, with their JSON Schemas and AsyncAPI document."""

from edge_agent.messages.commands import Command, Reply
from edge_agent.messages.events import CloudEvent, Defect, DefectEvent, GapEvent
from edge_agent.messages.health import HealthDocument
from edge_agent.messages.schema import schemas
from edge_agent.messages.state import StateDocument

__all__ = [
    "CloudEvent",
    "Command",
    "Defect",
    "DefectEvent",
    "GapEvent",
    "HealthDocument",
    "Reply",
    "StateDocument",
    "schemas",
]
