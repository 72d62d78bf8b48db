"""The commands of edge-agent, one file for each kind of them; `__main__` joins them."""
