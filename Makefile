# demo: a small grid from nothing to figures    lab: open JupyterLab
# test: the whole test suite                    grid: what is missing of the miniature's
# figures: draw what runs/ holds, and a report  gpu: measure this machine's GPU
# docs: the notebooks, executed, as pages       small: the grid of small real models
#                                               real: a part of it, in minutes
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --no-compile
PAPERMILL := $(BIN)/papermill --no-progress-bar
REPORT := --template report --TemplateExporter.extra_template_basedirs=maple_utils/data

# The demo's cells, on data of its own: the notebooks put each into runs/CELL.
DATA := bactrian-x-miniature
BASES := $(addprefix runs/miniature-llama_,4bit 16bit)
CELLS := $(addprefix runs/miniature-llama_$(DATA)_,r2_4bit r2_16bit r32_4bit r32_16bit)
PARAMS := -f params/miniature.yaml -f params/cells/miniature-llama

# The small grid's real models, and its data in languages of all levels of resources.
SMALL := $(addprefix runs/models/,gemma-3-270m smollm2-135m)
CLDR := runs/instructions/cldr
$(CLDR)-10: LANGUAGES := en zh hi vi id ta sw yo qu te
$(CLDR)-20: LANGUAGES := en zh hi vi id ta sw yo qu te ar es ru tr bn th am mr my so

# A small part of it: one base model, two adapters, four languages.
REAL := $(addprefix runs/real/gemma-3-270m_cldr-10_,r2_16bit r32_16bit)
FEW := -p languages en,hi,sw,te -p tasks words

# Each notebook imports the same libraries: their byte code is made once and kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lab grid small real figures docs gpu
.DELETE_ON_ERROR:

# Two notebooks at a time, so one thread each; more would wait for each other.
demo: .venv/ready
	OMP_NUM_THREADS=1 $(MAKE) -j2 $(addsuffix /scores.parquet,$(BASES))
	$(MAKE) figures
	@$(BIN)/python -m maple_utils.results runs
	@$(BIN)/python -m maple_utils.claims runs

test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal \
		--durations 20 --durations-min 10

lab: .venv/ready
	$(BIN)/jupyter lab notebooks

grid: GRID ?= miniature
grid: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 \
		snakemake -c2 --config grid=$(GRID) together=true

small: $(SMALL) $(CLDR)-10 $(CLDR)-20
	$(MAKE) grid GRID=small

real: $(addsuffix /scores.parquet,runs/real/gemma-3-270m_16bit $(REAL))
	@$(BIN)/python -m maple_utils.results runs/real
	@$(BIN)/python -m maple_utils.claims runs/real

$(REAL:=/scores.parquet): %/scores.parquet: %/train.json

runs/real/%/scores.parquet: runs/models/gemma-3-270m
	mkdir -p $(@D)
	$(PAPERMILL) notebooks/03_evaluate.ipynb $(@D)/03_evaluate.ipynb $(FEW) \
		-f params/small.yaml -f params/cells/$*.yaml -p output_dir $(@D) \
		-p test_limit 200

$(REAL:=/train.json): runs/real/%/train.json: runs/models/gemma-3-270m $(CLDR)-10
	mkdir -p $(@D)
	$(PAPERMILL) notebooks/02_train.ipynb $(@D)/02_train.ipynb $(FEW) -p max_steps 16 \
		-f params/small.yaml -f params/cells/$*.yaml -p output_dir $(@D)

$(CLDR)-%: | .venv/ready
	$(BIN)/python -m maple_utils.cldr write $@ --languages $(LANGUAGES)

runs/models/%: | .venv/ready
	$(PIP) --quiet gguf==0.19.0
	$(BIN)/python -m maple_utils.small_models runs/models $*

figures: .venv/ready
	mkdir -p runs
	$(PAPERMILL) notebooks/04_figures.ipynb runs/04_figures.ipynb
	$(BIN)/jupyter nbconvert --to html --no-input $(REPORT) \
		--output-dir runs/figures --output report.html runs/04_figures.ipynb

docs: .venv/ready
	OMP_NUM_THREADS=2 $(BIN)/python -m docs.pages

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
		runs/miniature-llama_$(DATA)_r2_%/train.json \
		runs/miniature-llama_$(DATA)_r32_%/train.json | $(CELLS:=/train.json)
	mkdir -p $(@D)
	$(PAPERMILL) notebooks/03_evaluate.ipynb $(@D)/03_evaluate.ipynb $(PARAMS)_$*.yaml \
		-y 'adapters: [$(foreach run,$(^:/train.json=),"$(run)/adapter",)]'
