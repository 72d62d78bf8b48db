"""Common parts of the workshop's command line tools; the agent does not use them."""
