# `make demo` and `make test` work on a clean clone with python3 (3.11 or newer), make and a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED := build/.installed
FILES := $(VENV)/.files
OLD_TRITON := $(VENV)/triton36

.PHONY: demo test lint types layers unit aot36 slow bench format install clean FORCE
.DELETE_ON_ERROR:

demo: install
	$(BIN)/einc demo

test: lint types layers unit

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports --no-logo

unit: install
	$(BIN)/pytest -n 2 -m "not slow"

# What compiles ahead of time, against the oldest Triton that is supported; the rest of the environment stays as it is.
aot36: $(OLD_TRITON)/.installed
	PYTHONPATH=$(OLD_TRITON) $(BIN)/pytest -m aot

slow: install aot36
	$(BIN)/pytest -n auto --hypothesis-profile=wide

bench: install
	$(BIN)/python bench/speed.py

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# The environment: installed again when what is asked for changes, and, since the editable install links file by file,
# when a file of the package comes or goes. The stamp lies in build/ because the links do.

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.cfg setup.py constraints.txt $(FILES)
	$(PIP) install --constraint constraints.txt setuptools wheel
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

$(FILES): FORCE
	@test -x $(BIN)/python || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "einc needs Python 3.11 or newer, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
	  rm -f $@; $(PYTHON) -m venv $(VENV); }
	@find compiler frontend passes codegen -name '*.py' -o -name '*.lark' -o -name '*.ein' | sort > $@.now
	@cmp -s $@.now $@ || cp $@.now $@
	@rm -f $@.now

$(OLD_TRITON)/.installed: $(INSTALLED)
	$(PIP) install --no-deps --target $(OLD_TRITON) --upgrade triton==3.6.0
	@touch $@
