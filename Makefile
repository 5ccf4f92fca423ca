PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCKS := requirements
COMPILE := $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet

# Mosquitto lies in /usr/sbin, and without root in the cache; the system's own programs win.
export PATH := $(PATH):/usr/sbin:$(CURDIR)/.cache/servers/bin

.PHONY: setup lint servers test bench demo lock

$(STAMP): pyproject.toml $(LOCKS)/full.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	"Forewarn needs Python 3.11 to 3.13: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCKS)/full.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

setup: $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

servers:
	bash tests/install_servers.sh

test: lint servers
	$(BIN)/python -m pytest

bench: $(STAMP) servers
	$(BIN)/python -m tests.benchmarks

# ONCE=1 ends after the alarm; the exit status is 0 only if it came.
demo: $(STAMP)
	$(BIN)/python -m deploy.demo $(if $(ONCE),--once)

# The newest releases that pyproject.toml allows; names no index, so that every mirror serves it.
lock:
	$(COMPILE) --upgrade --extra cpu --output-file $(LOCKS)/edge.lock
	$(COMPILE) --upgrade --extra test --output-file $(LOCKS)/full.lock
	$(COMPILE) --upgrade --extra gpu --output-file $(LOCKS)/gpu.lock
