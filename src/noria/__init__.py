"""Noria closes the LLM loop: register, serve, record, monitor, retrain, gate, roll out."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("noria")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
