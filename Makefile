# Each target sets up what it needs; a second run finds it there. What they do is in scripts/, one verb a file.
SEED ?= 0
PORT ?= 8480
PYTHON ?= python3
export PYTHON
# compiled modules are kept, whatever the caller's shell says: starts are several times as fast
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up test test-fast test-torch check format reference clean

help:
	@echo "make demo [SEED=7] [PORT=0]  the whole loop on real data, from installation to summary"
	@echo "make up                      run the project in this folder (noria.yaml)"
	@echo "make test                    set up, check and run every test"
	@echo "make test-fast               only the tests that are quick and kill nothing"
	@echo "make test-torch              the tests of fine-tuning; installs torch"
	@echo "make check                   ruff, mypy, import-linter"
	@echo "make format                  put the code in order"
	@echo "make reference               write docs/reference anew from the code"
	@echo "make clean                   remove what the targets made, but no project's data (.noria)"

demo:
	@scripts/install run
	@.venv/bin/python -m demo --seed $(SEED) --port $(PORT)

up:
	@scripts/install run
	@.venv/bin/noria up --port $(PORT)

test:
	@scripts/install dev
	@scripts/install chromium
	@scripts/install java
	@scripts/check
	@scripts/test fast
	@scripts/test slow

test-fast:
	@scripts/install dev
	@scripts/test fast

test-torch:
	@scripts/install dev
	@scripts/install torch
	@scripts/test torch

check:
	@scripts/install dev
	@scripts/check

format:
	@scripts/install dev
	@scripts/format

reference:
	@scripts/install dev
	@.venv/bin/python scripts/reference.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
