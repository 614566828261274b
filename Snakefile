"""The grid as a graph of papermill runs: 01 -> 02 -> 03 -> 04.

    snakemake -c2                                   # the miniature, on this machine
    snakemake -c2 --config cells=NAME,NAME limit=10 # a quick try of some cells
    snakemake -c16 --config grid=paper              # the paper's, on one machine's GPU
    snakemake --config grid=paper --workflow-profile profiles/slurm  # a SLURM cluster
    snakemake -n                                    # what would run, and why
    python -m maple_utils.grid status               # what has run, and when it is done

profiles/default is read by itself: one GPU job at a time (`--resources gpu=4` on a
machine with four), a failed cell does not stop the others, nothing is tried twice.
profiles/slurm asks for one GPU and eight CPUs per job, and memory and time from the
estimate. What the time limit ends is tried again, and resumes; what ended by an error
of its own is not.

Instruction data that have a file of 01's parameters, params/instructions/NAME.yaml, are
made first and once; others are published, or come with the miniature.

A cell is run again when its own parameters or its data changed, and no other. A change
of code reruns nothing, for a cell may have cost hours of a GPU: `python -m
maple_utils.grid status` names the cells that other code made, and this runs them again
(-n shows what it would run, `-R figures` draws the figures again):

    snakemake -c2 -R $(python -m maple_utils.grid other-code)

Where a cell failed, its executed notebook is kept as runs/CELL/02_train.failed.ipynb.

--config  grid=miniature     a file of params/, without its ending
          cells=NAME,NAME    these cells only; all where left out
          limit=10           rows per language, of training and of each task, at most
          together=true      evaluate all cells of a base and width over one loaded
                             base: saves the start of a run per cell, but waits for all
                             of them, and one that changed takes the others along
          device=a100        whose time and memory are asked for: cpu t4 a100 h100
          minutes=1440       that no job asks to exceed: a partition's limit
"""

import fcntl
from pathlib import Path
from shutil import which

from snakemake.exceptions import WorkflowError

from maple_utils import grid
from maple_utils.grid import estimate, staleness

GRID = config.get("grid", "miniature")
CELLS, SETTINGS = grid.read_grid(Path(f"params/{GRID}.yaml"))
CELLS = grid.pick(CELLS, config.get("cells", ""))
ADAPTERS = [name for name, cell in CELLS.items() if not cell.is_base]
LIMITS = grid.limits(int(config["limit"])) if "limit" in config else {}
SETTINGS |= LIMITS
LIMIT = " ".join(f"-p {name} {rows}" for name, rows in LIMITS.items())
TOGETHER = str(config.get("together", False)).lower() == "true"
DEVICE = config.get("device", "a100" if GRID == "paper" else "cpu")
MINUTES = int(config.get("minutes", 24 * 60))
GPU = 1 if DEVICE != "cpu" or which("nvidia-smi") else 0  # notebooks take what is there
CPUS = 8 if GPU else 1  # rows are tokenized and compared on them
TABLES = ("predictions.parquet", "scores.parquet", "evaluate.json")


def recipe(data: str) -> Path:
    """Return the parameters by which notebook 01 makes a dataset, if it is to."""
    return Path(f"params/instructions/{data}.yaml")


def made(wildcards) -> list[str]:
    """Return the data that 01 makes for a cell: those with a recipe."""
    data = CELLS[wildcards.cell].instruction_data
    return [f"runs/instructions/{data}/README.md"] if recipe(data).is_file() else []


def facts(notebook: str, name: str) -> dict:
    """Return what makes a cell's run of this notebook stale when it changes."""
    cell = CELLS[name]
    given = grid.parameters(notebook, cell, SETTINGS)
    if notebook == "02_train":
        given.pop("tasks", None)  # it only compares its rows with them
    return {**given, **staleness.data_of(notebook, cell, SETTINGS)}


def ask(stage: str, what: str, names: list[str]) -> int:
    """Return what a job needs by the estimate: `mem_mb`, or `runtime` in minutes."""
    needs = [estimate.request(stage, CELLS[n], SETTINGS, DEVICE)[what] for n in names]
    return min(sum(needs), MINUTES) if what == "runtime" else max(needs)


def once(notebook: str) -> str:
    """Return the shell's first lines: no second attempt after an error of its own.

    A job that a time limit or a lost node ended leaves no failed notebook.
    """
    failed = f"{notebook}.failed.ipynb"
    return f"[ {{resources.attempt}} -gt 1 ] || rm -f {failed}; [ ! -e {failed} ];"


def members(base: str) -> list[str]:
    """Return the cells over a base model at a width, the base model itself first."""
    return [name for name, cell in CELLS.items() if cell.base.name == base]


# Snakemake's own lock outlives a kill; this one ends with the process that holds it.
if workflow.is_main_process and not workflow.dryrun:
    Path("runs").mkdir(exist_ok=True)
    LOCK = open("runs/.lock", "w")
    try:
        fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError("another Snakemake is at work on runs/; wait for its end")

if GPU:
    shell.prefix(". profiles/take_gpu.sh; ")


wildcard_constraints:
    cell="|".join(CELLS),


localrules:
    all,


rule all:
    input:
        "runs/figures/tables/claims.csv",


rule synthesize:
    input:
        lambda w: recipe(w.data),
    output:
        "runs/instructions/{data}/README.md",
    params:
        to=lambda w: f"runs/instructions/{w.data}",
    resources:
        attempt=lambda w, attempt: attempt,
    shell:
        once("{params.to}")
        + " papermill notebooks/01_synthesize.ipynb {params.to}.ipynb"
        " -f {input} -p output_dir {params.to} --no-progress-bar"
        " || (mv {params.to}.ipynb {params.to}.failed.ipynb; false)"


rule train:
    input:
        made,
        cell="params/cells/{cell}.yaml",
    output:
        "runs/{cell}/train.json",
        directory("runs/{cell}/adapter"),
    params:
        facts=lambda w: facts("02_train", w.cell),
    resources:
        gpu=GPU,
        cpus_per_task=CPUS,
        attempt=lambda w, attempt: attempt,
        mem_mb=lambda w: ask("train", "mem_mb", [w.cell]),
        runtime=lambda w: ask("train", "runtime", [w.cell]),
    shell:
        once("runs/{wildcards.cell}/02_train")
        + " papermill notebooks/02_train.ipynb runs/{wildcards.cell}/02_train.ipynb"
        " -f params/{GRID}.yaml -f {input.cell} {LIMIT} --no-progress-bar"
        " || (cd runs/{wildcards.cell}; mv 02_train.ipynb 02_train.failed.ipynb; false)"


if TOGETHER:
    for base in {cell.base.name for cell in CELLS.values()}:

        rule:
            name:
                f"evaluate_{base}"
            input:
                [f"runs/{n}/train.json" for n in members(base) if n in ADAPTERS],
                cell=f"params/cells/{members(base)[0]}.yaml",
            output:
                [f"runs/{name}/{table}" for name in members(base) for table in TABLES],
            params:
                facts=[facts("03_evaluate", name) for name in members(base)],
                first=members(base)[0],
                others=", ".join(f"runs/{name}/adapter" for name in members(base)[1:]),
            resources:
                gpu=GPU,
                cpus_per_task=CPUS,
                attempt=lambda w, attempt: attempt,
                mem_mb=ask("evaluate", "mem_mb", members(base)),
                runtime=ask("evaluate", "runtime", members(base)),
            shell:
                once("runs/{params.first}/03_evaluate")
                + " papermill notebooks/03_evaluate.ipynb"
                " runs/{params.first}/03_evaluate.ipynb -f params/{GRID}.yaml"
                " -f {input.cell} -y 'adapters: [{params.others}]' {LIMIT}"
                " --no-progress-bar || (cd runs/{params.first};"
                " mv 03_evaluate.ipynb 03_evaluate.failed.ipynb; false)"

else:

    rule evaluate:
        input:
            lambda w: [f"runs/{w.cell}/train.json"] if w.cell in ADAPTERS else [],
            cell="params/cells/{cell}.yaml",
        output:
            [f"runs/{{cell}}/{table}" for table in TABLES],
        params:
            facts=lambda w: facts("03_evaluate", w.cell),
        resources:
            gpu=GPU,
            cpus_per_task=CPUS,
            attempt=lambda w, attempt: attempt,
            mem_mb=lambda w: ask("evaluate", "mem_mb", [w.cell]),
            runtime=lambda w: ask("evaluate", "runtime", [w.cell]),
        shell:
            once("runs/{wildcards.cell}/03_evaluate")
            + " papermill notebooks/03_evaluate.ipynb"
            " runs/{wildcards.cell}/03_evaluate.ipynb"
            " -f params/{GRID}.yaml -f {input.cell} {LIMIT} --no-progress-bar"
            " || (cd runs/{wildcards.cell};"
            " mv 03_evaluate.ipynb 03_evaluate.failed.ipynb; false)"


rule figures:
    input:
        expand("runs/{cell}/scores.parquet", cell=CELLS),
    output:
        "runs/figures/tables/claims.csv",
    shell:
        "papermill notebooks/04_figures.ipynb runs/figures/04_figures.ipynb"
        " --no-progress-bar"
