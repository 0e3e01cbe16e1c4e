"""How fast and how safely the loop turns: `python -m benchmarks.loop`."""
