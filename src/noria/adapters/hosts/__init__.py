"""Where versions run: on this machine, or elsewhere."""
