"""Commands of edge-agent, one file or folder per group; `__main__` joins them."""
