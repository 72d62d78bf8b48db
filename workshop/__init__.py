"""What the tools of the workshop share at the terminal; the agent does without."""
