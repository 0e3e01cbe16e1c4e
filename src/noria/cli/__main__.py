"""`python -m noria.cli` does what `noria` does."""

from noria.cli import main

main()
