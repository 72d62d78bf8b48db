"""Deliver messages: inbox, spool, broker connection."""
