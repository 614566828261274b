# demo: a small grid from nothing to figures    lab: open JupyterLab
# test: the whole test suite                    figures: draw what runs/ holds
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
BASES := miniature-llama_4bit miniature-llama_16bit
CELLS := $(foreach rank,4 32,$(foreach bits,4 16,\
	miniature-llama_bactrian-x-mini_r$(rank)_$(bits)bit))

.PHONY: demo test lab figures
.DELETE_ON_ERROR:

demo: $(patsubst %,$(DEMO)/%/scores.parquet,$(BASES) $(CELLS))
	$(BIN)/papermill notebooks/04_figures.ipynb $(DEMO)/04_figures.ipynb \
		-p runs_dir $(DEMO) -p output_dir $(DEMO)/figures
	@$(BIN)/python -m maple_utils.results $(DEMO)
	@echo "figures: $(DEMO)/figures"

test: .venv/ready
	$(BIN)/python -m pytest

lab: .venv/ready
	$(BIN)/jupyter lab notebooks

figures: .venv/ready
	mkdir -p runs
	$(BIN)/papermill notebooks/04_figures.ipynb runs/04_figures.ipynb

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar on -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

$(DEMO)/instructions/README.md: .venv/ready
	mkdir -p $(DEMO)
	$(BIN)/papermill notebooks/01_synthesize.ipynb $(DEMO)/01_synthesize.ipynb \
		-p output_dir $(@D)

$(DEMO)/%/train.json: $(DEMO)/instructions/README.md
	mkdir -p $(@D)
	$(BIN)/papermill notebooks/02_train.ipynb $(@D)/02_train.ipynb \
		-f params/miniature.yaml -f params/cells/$*.yaml -p output_dir $(@D)

$(CELLS:%=$(DEMO)/%/scores.parquet): $(DEMO)/%/scores.parquet: $(DEMO)/%/train.json
$(BASES:%=$(DEMO)/%/scores.parquet): .venv/ready
$(DEMO)/%/scores.parquet:
	mkdir -p $(@D)
	$(BIN)/papermill notebooks/03_evaluate.ipynb $(@D)/03_evaluate.ipynb \
		-f params/miniature.yaml -f params/cells/$*.yaml -p output_dir $(@D)
