# Every target does its own set-up: a fresh clone needs Python 3.11 to 3.13, git and make.
.DEFAULT_GOAL := help
.PHONY: help setup train test test-all check format options clean

ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VENV := $(ROOT).venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=
# One pytest worker a core: each holds its own TensorFlow of about 1 GB.
WORKERS ?= 2

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP)  ## Create .venv and install everything (quick when nothing changed)

$(STAMP): $(ROOT)pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing $(VENV) && \
	  uv pip install --quiet --python $(PYTHON) --editable '$(ROOT)[dev]'; \
	else \
	  python3 -m venv $(VENV) && \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --use-pep517 --editable '$(ROOT)[dev]'; \
	fi
	@touch $@

train: setup  ## Train on digits (ARGS="optimizer=sgd ..." for anything else)
	@$(PYTHON) $(ROOT)train.py $(ARGS)

test: setup  ## Run the fast tests
	@cd $(ROOT) && $(PYTHON) -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

test-all: setup  ## Run all tests, slow ones too
	@cd $(ROOT) && $(PYTHON) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: setup  ## Lint, formatting, types, import contracts, size caps
	@cd $(ROOT) && $(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@cd $(ROOT) && $(VENV)/bin/mypy
	@cd $(ROOT) && $(VENV)/bin/lint-imports
	@cd $(ROOT) && $(PYTHON) scripts/size.py

format: setup  ## Format the code
	@cd $(ROOT) && $(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

options: setup  ## Write the option table of the README anew from conf/
	@$(PYTHON) $(ROOT)scripts/options.py

clean:  ## Remove the environment and the caches (never outputs/)
	rm -rf $(VENV) $(ROOT).mypy_cache $(ROOT).ruff_cache $(ROOT).pytest_cache $(ROOT).import_linter_cache
