"""Message delivery: inbox, spool and broker connection."""
