"""Configuration of the agent: types, limits, loader."""

from edge_agent.config.config import Config, load

__all__ = ["Config", "load"]
