# demo: a small grid from nothing to figures    lab: open JupyterLab
# test: the whole test suite                    grid: what is missing of the miniature's
# figures: draw what runs/ holds, and a report
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
DATA := bactrian-x-miniature
BASES := 4bit 16bit
CELLS := r4_4bit r4_16bit r32_4bit r32_16bit
BASE_SCORES := $(BASES:%=$(DEMO)/miniature-llama_%/scores.parquet)
CELL_SCORES := $(CELLS:%=$(DEMO)/miniature-llama_$(DATA)_%/scores.parquet)

.PHONY: demo test lab grid figures
.DELETE_ON_ERROR:

demo: $(BASE_SCORES) $(CELL_SCORES)
	$(BIN)/papermill notebooks/04_figures.ipynb $(DEMO)/04_figures.ipynb \
		-p runs_dir $(DEMO) -p output_dir $(DEMO)/figures
	@$(BIN)/python -m maple_utils.results $(DEMO)
	@echo "figures: $(DEMO)/figures"

# Two tests at a time, so one thread each; more would wait for each other.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lab: .venv/ready
	$(BIN)/jupyter lab notebooks

grid: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 snakemake -c2

figures: .venv/ready
	mkdir -p runs
	$(BIN)/papermill notebooks/04_figures.ipynb runs/04_figures.ipynb
	$(BIN)/jupyter nbconvert --to html --no-input --template report \
		--TemplateExporter.extra_template_basedirs=maple_utils/data \
		--output-dir runs/figures --output report.html runs/04_figures.ipynb

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar on -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

runs/instructions/$(DATA)/README.md: .venv/ready
	mkdir -p $(DEMO)
	$(BIN)/papermill notebooks/01_synthesize.ipynb $(DEMO)/01_synthesize.ipynb

$(DEMO)/miniature-llama_$(DATA)_%/train.json: runs/instructions/$(DATA)/README.md
	mkdir -p $(@D)
	$(BIN)/papermill notebooks/02_train.ipynb $(@D)/02_train.ipynb \
		-f params/miniature.yaml -f params/cells/miniature-llama_bactrian-x-mini_$*.yaml \
		-p instruction_data $(DATA) -p output_dir $(@D)

$(CELL_SCORES): $(DEMO)/miniature-llama_$(DATA)_%/scores.parquet: \
		$(DEMO)/miniature-llama_$(DATA)_%/train.json
	$(BIN)/papermill notebooks/03_evaluate.ipynb $(@D)/03_evaluate.ipynb \
		-f params/miniature.yaml -f params/cells/miniature-llama_bactrian-x-mini_$*.yaml \
		-p instruction_data $(DATA) -p output_dir $(@D)

$(BASE_SCORES): $(DEMO)/miniature-llama_%/scores.parquet: .venv/ready
	mkdir -p $(@D)
	$(BIN)/papermill notebooks/03_evaluate.ipynb $(@D)/03_evaluate.ipynb \
		-f params/miniature.yaml -f params/cells/miniature-llama_$*.yaml \
		-p output_dir $(@D)
