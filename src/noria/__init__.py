"""Noria closes the LLM loop: register, serve, record, monitor, retrain, gate, roll out."""

__version__: str
"""The installed version; looked up when asked for, since the look-up takes longer than many a command."""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module 'noria' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("noria")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
