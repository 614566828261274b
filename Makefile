# demo: a small grid from nothing to figures    lab: open JupyterLab
# test: the whole test suite                    grid: what is missing of the miniature's
# figures: draw what runs/ holds, and a report  gpu: measure this machine's GPU
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --no-compile
PAPERMILL := $(BIN)/papermill --no-progress-bar
REPORT := --template report --TemplateExporter.extra_template_basedirs=maple_utils/data

# The demo's cells, on data of its own: the notebooks put each into runs/CELL.
DATA := bactrian-x-miniature
BASES := $(addprefix runs/miniature-llama_,4bit 16bit)
CELLS := $(addprefix runs/miniature-llama_$(DATA)_,r4_4bit r4_16bit r32_4bit r32_16bit)
PARAMS := -f params/miniature.yaml -f params/cells/miniature-llama

.PHONY: demo test lab grid figures gpu
.DELETE_ON_ERROR:

# Two notebooks at a time, so one thread each; more would wait for each other.
demo: .venv/ready
	OMP_NUM_THREADS=1 $(MAKE) -j2 $(addsuffix /scores.parquet,$(BASES))
	$(MAKE) figures
	@$(BIN)/python -m maple_utils.results runs

test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lab: .venv/ready
	$(BIN)/jupyter lab notebooks

grid: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 \
		snakemake -c2 --config together=true

figures: .venv/ready
	mkdir -p runs
	$(PAPERMILL) notebooks/04_figures.ipynb runs/04_figures.ipynb
	$(BIN)/jupyter nbconvert --to html --no-input $(REPORT) \
		--output-dir runs/figures --output report.html runs/04_figures.ipynb

gpu: .venv/test
	$(BIN)/python -m benchmarks.gpu

# An older pip, and compiling all of torch at once, take three times as long.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --quiet --upgrade pip
	$(PIP) --progress-bar on -r requirements.txt
	$(PIP) --no-deps -e .
	touch $@

.venv/test: .venv/ready requirements-test.txt
	$(PIP) --progress-bar on -r requirements-test.txt
	touch $@

runs/instructions/$(DATA)/README.md: | .venv/ready
	mkdir -p runs
	$(PAPERMILL) notebooks/01_synthesize.ipynb runs/01_synthesize.ipynb

$(CELLS:=/train.json): runs/miniature-llama_$(DATA)_%/train.json: \
		runs/instructions/$(DATA)/README.md
	mkdir -p $(@D)
	$(PAPERMILL) notebooks/02_train.ipynb $(@D)/02_train.ipynb \
		$(PARAMS)_bactrian-x-mini_$*.yaml -p instruction_data $(DATA)

# A base model and its adapters at the same bits in one run, which loads it once. Both
# runs wait for all adapters, so that they go side by side.
$(BASES:=/scores.parquet): runs/miniature-llama_%/scores.parquet: \
		runs/miniature-llama_$(DATA)_r4_%/train.json \
		runs/miniature-llama_$(DATA)_r32_%/train.json | $(CELLS:=/train.json)
	mkdir -p $(@D)
	$(PAPERMILL) notebooks/03_evaluate.ipynb $(@D)/03_evaluate.ipynb $(PARAMS)_$*.yaml \
		-y 'adapters: [$(foreach run,$(^:/train.json=),"$(run)/adapter",)]'
