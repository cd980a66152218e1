# make run:   the main job on the bundled digits; leaves a run under results/
# make test:  lint, types, unit tests, notebooks
# make study: the first observation (memory size, swap ratio), five seeds; about eight minutes; one thread, which is
#             as fast for so small a model and the same on any number of cores
# make docs:  the page and picture of the last make study
# make paper: what the paper's figures need and has not been run, then notebook 20_paper_figures; PRESET=smoke (digits,
#             minutes; the default), small (parts of the paper's data sets, hours) or paper (its settings)
# make lab:   JupyterLab in notebooks/
# make bench: the benchmarks of docs/benchmarks.md
# make controller: how well the controller spends work, against simple rules and a front that hindsight alone knows, on the
#             data sets in MIRO_DATA: digits and DSADS ten seeds, CIFAR-100 and Tiny-ImageNet three; some eight hours on one
#             core; what benchmarks/measured/controller has is kept, so that it goes on; writes docs/controller.md
# make generality: Miro against baselines on the five data sets in MIRO_DATA, three seeds, and against an oracle; an hour and a
#             half; what results/generality and results/oracle have is kept, so that it goes on; writes docs/generality.md
# make adaptation: budget drops, a throttled store and a disk competitor, on CIFAR-100 in MIRO_DATA; writes docs/adaptation.md
# make notebooks: run every notebook and save its outputs

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NBVAL := -n 2 --dist loadfile --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg

.PHONY: run test lint study paper controller generality adaptation lab bench notebooks docs clean

# Small models train as fast on one thread, and much faster where something else wants the other cores.
run test study paper: export OMP_NUM_THREADS ?= 1

run: $(READY)
	$(BIN)/python -m mirolib launch 10_run

test: lint
	$(BIN)/python -m pytest -q
	results=$$(mktemp -d) && trap 'rm -rf "$$results"' EXIT && \
	MIRO_RESULTS=$$results PLOTLY_RENDERER=plotly_mimetype $(BIN)/python -m pytest -q -W default $(NBVAL) notebooks

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --keep-output --keep-count --keep-id notebooks/*.ipynb

study: $(READY)
	$(BIN)/python -m mirolib launch 13_swap_ratio seeds=5 epochs=20 episodic_sizes='[10,20,50,100,200,400]' \
		swap_ratios='[0.0,0.05,0.1,0.2,0.5,1.0]' ratio_sizes='[10,20,50]'
	$(BIN)/python -m mirolib launch 13_swap_ratio seeds=3 epochs=70 episodic_sizes='[20]' \
		swap_ratios='[0.0,0.2,1.0]' ratio_sizes='[20]'

PRESET ?= smoke
paper: $(READY)
	$(BIN)/python -m mirolib paper $(PRESET)

controller: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test,png]'
	for seed in 310 311 312 313 314 315 316 317 318 319; do \
	for set in digits dsads $$(test $$seed -lt 313 && echo cifar100 tiny-imagenet); do \
		OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.controller measure $$set $$seed || exit 1; done; done
	$(BIN)/python -W ignore -m benchmarks.controller_report

generality: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test,png,audio]'
	for word in small Miro preset random whole; do for seed in 13 14 15; do \
	for set in dsads urbansound8k cifar100 imagenet1k tiny-imagenet; do \
		OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.generality measure $$set $$seed $$word || exit 1; done; done; done
	for set in dsads urbansound8k cifar100; do for seed in 13 14 15; do \
		OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.oracle $$set $$seed 4 || exit 1; done; done
	$(BIN)/python -W ignore -m benchmarks.generality_report

adaptation: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test,png]'
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.adaptation

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir notebooks

bench: $(READY)
	$(BIN)/python -m benchmarks

notebooks: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test,png]'
	$(BIN)/python tests/support/refresh_notebooks.py

docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test,png]'
	$(BIN)/python docs/first_observation.py

# The environment is made anew only when pyproject.toml changes what it needs.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV)
