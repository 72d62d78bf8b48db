"""The agent's configuration: types, limits, loader."""
