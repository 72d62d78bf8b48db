"""What a person who exports can get wrong."""

from edge_agent.errors import EdgeError


class ExportError(EdgeError):
    """The person who exports must act: a model, samples or an argument does not fit."""
