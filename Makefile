# Needs python3 (3.11 or newer), git and make; everything else is installed into .venv when it is first used.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile

# `python` and `dvc` below, and `python` in dvc.yaml, are those of .venv.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Bytecode is kept, whatever the environment says: each step is a process, and torch takes 5 s to import without it.
export PYTHONDONTWRITEBYTECODE :=

# No tool reports its use to anybody, unless the environment says otherwise.
export DO_NOT_TRACK ?= true
export DVC_NO_ANALYTICS ?= true
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export MLFLOW_DISABLE_TELEMETRY ?= true

.DEFAULT_GOAL := repro
.PHONY: repro faces test lint bench bench-scale bench-gpu world ui serve sync doctor clean

repro: $(VENV)/run.stamp  ## run the experiment of params.yaml, or continue it
	python -m dvc repro $(ARGS)
	@echo "The report is reports/index.html; \`make ui\` compares the passes."

faces: $(VENV)/run.stamp  ## choose the experiment on a real generator of faces, and run it
	python -m promptgen experiments choose faces-smile
	python -m dvc repro $(ARGS)

test: $(VENV)/dev.stamp  ## run the tests, in WORKERS processes
	python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/dev.stamp  ## check style and types
	python -m ruff check .
	python -m ruff format --check .
	python -m mypy

bench: $(VENV)/run.stamp  ## compare the samplers on counted tasks, or continue
	python -m benchmarks $(ARGS)

bench-scale: $(VENV)/run.stamp  ## compare two workers with one
	OMP_NUM_THREADS=1 python -m benchmarks.scale $(ARGS)

bench-gpu: $(VENV)/run.stamp  ## measure every network, a training step and the default experiment on a GPU
	python -m benchmarks.gpu $(ARGS)

world: $(VENV)/run.stamp  ## train the models of the embedded world from scratch
	python -m promptgen build-world $(ARGS)

ui: $(VENV)/run.stamp  ## start the web pages of MLflow and Prefect on this machine
	python -m promptgen ui $(ARGS)

serve: $(VENV)/run.stamp  ## run the experiment on the schedule of params.yaml
	python -m dvc repro --quiet list_models fetch
	python -m promptgen serve $(ARGS)

sync: $(VENV)/run.stamp  ## send MLflow the records that it has missed
	python -m promptgen sync

doctor: $(VENV)/run.stamp  ## check this machine, and say how to fix what is wrong
	python -m promptgen doctor

clean:  ## remove everything that `make repro` can make again; recorded runs are kept
	rm -rf artifacts models .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11; say PYTHON=python3.11 (or newer) after make" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements-diffusers.txt requirements-ray.txt $(VENV)/run.stamp
	$(INSTALL) -r requirements-dev.txt
	@touch $@
