# make run:   the main job on the bundled digits; leaves a run under results/
# make test:  lint, types, unit tests, notebooks
# make study: the first observation (EM size, swap ratio) with five seeds; about ten minutes
# make lab:   JupyterLab in notebooks/

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg

.PHONY: run test lint study lab bench clean

run: $(READY)
	$(BIN)/python -m mirolib launch 10_run

test: lint
	$(BIN)/python -m pytest -q
	$(BIN)/python -m pytest -q -W default $(NBVAL) notebooks

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

study: $(READY)
	$(BIN)/python -m mirolib launch 13_swap_ratio seeds=5 preset=small

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir notebooks

bench: $(READY)
	$(BIN)/python -m benchmarks

# The environment is made anew only when pyproject.toml changes what it needs.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV)
