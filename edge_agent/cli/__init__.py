"""The commands of edge-agent, one file or folder for each kind of them; `__main__` joins them."""
