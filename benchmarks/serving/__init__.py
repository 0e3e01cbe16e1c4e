"""How fast serving is, beside the servers that it is compared with: `python -m benchmarks.serving --json FILE`."""
