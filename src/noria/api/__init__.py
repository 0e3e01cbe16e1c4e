"""The data plane over HTTP: inference, feedback, probes, metrics and the console. One light process; see `app.py`."""
