PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
# Its PyTorch brings gigabytes of its own, and pins that are not ours: an environment for itself.
LIBRARY := .venv-bench-training
LIBRARY_STAMP := $(LIBRARY)/.installed
# `onnxruntime-gpu` and what the other tests need overwrite each other.
GPU := .venv-gpu
GPU_STAMP := $(GPU)/.installed
GPU_BUNDLE := .cache/gpu-bundle
LOCKS := requirements
COMPILE := $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet

# Mosquitto lies in /usr/sbin, and without root in the cache; the system's own programs win.
export PATH := $(PATH):/usr/sbin:$(CURDIR)/.cache/servers/bin

.PHONY: setup lint servers test test-gpu bench bench-tables benchmarks benchmark-table demo lock

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

# A file's tests share what they set up, so that files are handed to the processes, one for each core, whole.
test: lint servers
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

$(GPU_STAMP): $(LOCKS)/gpu.lock $(LOCKS)/full.lock
	test -x $(GPU)/bin/python || $(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip install --quiet --require-hashes -r $(LOCKS)/gpu.lock
	sed -e '/--hash/d' -e 's/ \\$$//' $(LOCKS)/full.lock >$(GPU)/versions
	$(GPU)/bin/python -m pip install --quiet --constraint $(GPU)/versions pytest hypothesis
	touch $@

$(GPU_BUNDLE): | $(STAMP)
	$(BIN)/python -c 'from pathlib import Path; from tests.benchmarks.default_bundle import make_default_bundle; \
	make_default_bundle(Path("$@"))'

# What `make test` leaves out, on an NVIDIA GPU; fails without one. It also prints samples a second of the default model.
test-gpu: $(GPU_STAMP) $(GPU_BUNDLE)
	FOREWARN_BUNDLE=$(GPU_BUNDLE) $(GPU)/bin/python -m pytest -m gpu tests/test_device_state.py

# A neighbour that the agent is measured beside, and nothing else.
$(BENCH_STAMP): $(STAMP) $(LOCKS)/bench.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCKS)/bench.lock
	touch $@

$(LIBRARY_STAMP): $(LOCKS)/bench-training.lock
	test -x $(LIBRARY)/bin/python || $(PYTHON) -m venv $(LIBRARY)
	$(LIBRARY)/bin/python -m pip install --quiet --require-hashes -r $(LOCKS)/bench-training.lock
	touch $@

# PARTS="kernel latency" takes some of kernel, agent, latency, memory, scaling, training; OPTIONS=--quick takes about ten
# minutes. Only when training is asked for by name is the library installed (3 GB) that stands beside it.
PARTS ?= all
BENCH_NEEDS = $(BENCH_STAMP) servers $(if $(filter training,$(PARTS)),$(LIBRARY_STAMP))
bench: $(BENCH_NEEDS)
	$(BIN)/python -m tests.benchmarks $(PARTS) $(OPTIONS)

# The same, kept, and the tables of docs/benchmarks.md and the README made from it.
bench-tables: $(BENCH_NEEDS)
	$(BIN)/python -m tests.benchmarks $(PARTS) $(OPTIONS) --out docs/benchmarks/speed
	$(BIN)/python -m tests.benchmarks.speed_tables

# Every run that the README's table is made from: hours with the LSTM. OPTIONS="--forecaster ridge --seeds 1" takes
# about two; each run prints the minutes that it took.
RUN = $(BIN)/python -m trainer.cli benchmark
benchmarks: $(STAMP)
	@test -d "$(DATA)" || { echo "make benchmarks DATA=DIR: the folder with skab, smap_msl and nab" >&2; exit 2; }
	$(RUN) skab --data "$(DATA)" $(OPTIONS) --out docs/benchmarks/skab.json
	$(RUN) skab --data "$(DATA)" --out docs/benchmarks/skab-lstm.json
	$(RUN) smap --data "$(DATA)" $(OPTIONS) --out docs/benchmarks/smap.json
	$(RUN) nab --data "$(DATA)" $(OPTIONS) --out docs/benchmarks/nab.json
	$(RUN) plant $(OPTIONS) --out docs/benchmarks/plant.json
	$(RUN) skab --data "$(DATA)" $(OPTIONS) --contaminated 0.03 --out docs/benchmarks/skab-contaminated.json
	$(RUN) skab --data "$(DATA)" $(OPTIONS) --missing 0.1 --out docs/benchmarks/skab-missing.json
	$(RUN) line $(OPTIONS) --dead 3 --out docs/benchmarks/line-dead.json
	$(RUN) skab --data "$(DATA)" $(OPTIONS) --ablate --out docs/benchmarks/skab-ablation.json
	$(RUN) plant --compare-forecasters --weeks 4 --out docs/benchmarks/plant-forecasters.json
	$(BIN)/python -m tests.benchmarks.readme_table

benchmark-table: $(STAMP)
	$(BIN)/python -m tests.benchmarks.readme_table

# ONCE=1 ends after the alarm; the exit status is 0 only if it came.
demo: $(STAMP)
	$(BIN)/python -m deploy.demo $(if $(ONCE),--once)

# The newest releases that pyproject.toml allows; names no index, so that every mirror serves it.
lock:
	$(COMPILE) --upgrade --extra cpu --output-file $(LOCKS)/edge.lock
	$(COMPILE) --upgrade --extra test --output-file $(LOCKS)/full.lock
	$(COMPILE) --upgrade --extra gpu --output-file $(LOCKS)/gpu.lock
	$(COMPILE) --upgrade --extra litert --constraint $(LOCKS)/full.lock --output-file $(LOCKS)/litert.lock
	$(COMPILE) --upgrade --extra bench --constraint $(LOCKS)/full.lock --output-file $(LOCKS)/bench.lock
	$(COMPILE) --upgrade --extra bench-training --output-file $(LOCKS)/bench-training.lock
