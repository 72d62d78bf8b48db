"""The durable queue between the line and the broker."""
