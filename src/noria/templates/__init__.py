"""What `noria init` writes: a project that works as it is, to be changed line by line into one's own."""

from importlib.resources import files


def template(name: str) -> str:
    """The text of one of the files beside this module."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
