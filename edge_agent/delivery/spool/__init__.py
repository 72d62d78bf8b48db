"""Durable message queue between the line and the broker."""
