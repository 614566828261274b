"""The parameters of a run: one table of names, types and bounds, checked in one place.

Every notebook begins with `run = params.check("02_train", globals())`. The defaults
stand in the notebooks' own parameters cells, where papermill's help finds them; what
is allowed stands here.
"""

import ast
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from maple_utils.languages import ParameterError, check_languages

TASKS = tuple(
    "xcopa belebele xquad mlqa indicqa xlsum xnli xstorycloze pawsx tydiqa".split()
)


@dataclass(frozen=True)
class Parameter:
    """What one parameter may be: its type, its choices or its bounds."""

    kind: type  # str, int, float, bool or list (of str)
    choices: tuple = ()
    low: float | None = None
    high: float | None = None
    pattern: str = ""  # what a text must match as a whole
    example: str = ""

    @property
    def allowed(self) -> str:
        """Say in words what is allowed."""
        words = {
            str: "text",
            int: "an integer",
            float: "a number",
            bool: "True or False",
        }
        if self.choices:
            listed = ", ".join(str(choice) or '""' for choice in self.choices)
            return f"any of {listed}" if self.kind is list else f"one of {listed}"
        if self.kind is list:
            return "a list of names, or names separated by commas"
        if self.pattern:
            return f"text like {self.pattern}"
        bounds = f" from {self.low:g} to {self.high:g}" if self.low is not None else ""
        return words[self.kind] + bounds


PARAMETERS: dict[str, Parameter] = {
    "base_model": Parameter(str, example="miniature-llama"),
    "instruction_data": Parameter(str, example="bactrian-x-mini"),
    "rank": Parameter(int, low=1, high=1024, example="32"),
    "bits": Parameter(int, choices=(4, 8, 16), example="4"),
    "seed": Parameter(int, low=0, high=2**31 - 1, example="0"),
    "languages": Parameter(list, example="sw,hi"),
    "tasks": Parameter(list, choices=TASKS, example="xcopa,xquad"),
    "shots": Parameter(int, low=-1, high=64, example="0"),
    "scoring": Parameter(str, choices=("likelihood", "generate", "both")),
    "limit": Parameter(int, low=0, high=10**9, example="100"),
    "hub_root": Parameter(str, example="miniature"),
    "output_dir": Parameter(str, example="runs/my-run"),
    "alpha_ratio": Parameter(float, low=0.01, high=64, example="2"),
    "dropout": Parameter(float, low=0, high=0.9, example="0.05"),
    "learning_rate": Parameter(float, low=1e-7, high=1, example="2.0e-4"),
    "epochs": Parameter(float, low=0.001, high=100, example="1"),
    "max_steps": Parameter(int, low=-1, high=10**9, example="-1"),
    "batch_size": Parameter(int, low=1, high=4096, example="32"),
    "micro_batch": Parameter(int, low=0, high=4096, example="32"),
    "max_length": Parameter(int, low=0, high=131072, example="1024"),
    "packing": Parameter(bool, example="False"),
    "dtype": Parameter(str, choices=("auto", "float32", "float16", "bfloat16")),
    "attention": Parameter(
        str, choices=("auto", "sdpa", "eager", "flash_attention_2", "flex_attention")
    ),
    "optimizer": Parameter(
        str,
        choices=tuple(
            "auto adamw_torch adamw_8bit paged_adamw_8bit paged_adamw_32bit".split()
        ),
    ),
    "recompute": Parameter(str, choices=("auto", "always", "never")),
    "save_steps": Parameter(float, low=0.001, high=10**9, example="0.1"),
    "eval_steps": Parameter(float, low=0.001, high=10**9, example="0.25"),
    "report_to": Parameter(str, choices=("none", "tensorboard", "wandb", "trackio")),
    "merge": Parameter(bool, example="True"),
    "push_to": Parameter(str, pattern=r"|[\w.-]+/[\w.-]+", example="me/my-adapter"),
    "heldout": Parameter(int, low=1, high=10000, example="20"),
    "adapters": Parameter(list, example="runs/a/adapter,runs/b/adapter"),
    "recipe": Parameter(str, choices=("bactrian-x", "multialpaca")),
    "seed_tasks": Parameter(str, example="miniature"),
    "teacher": Parameter(
        str, pattern="miniature|(endpoint|local):.+", example="endpoint:gpt-4o-mini"
    ),
    "translator": Parameter(
        str,
        pattern="miniature|(endpoint|local|nllb):.+",
        example="endpoint:gpt-4o-mini",
    ),
    "rounds": Parameter(int, low=1, high=1000, example="10"),
    "prompts": Parameter(int, low=1, high=100000, example="100"),
    "prompts_first": Parameter(int, low=1, high=100000, example="10"),
    "shown_seeds": Parameter(int, low=1, high=100, example="2"),
    "shown_pool": Parameter(int, low=0, high=100, example="1"),
    "tasks_per_prompt": Parameter(int, low=2, high=100, example="20"),
    "echo": Parameter(float, low=0, high=1, example="0.5"),
    "max_characters": Parameter(int, low=1, high=10**9, example="8192"),
    "temperature": Parameter(float, low=0, high=2, example="0.7"),
    "top_p": Parameter(float, low=0.01, high=1, example="1.0"),
    "max_tokens": Parameter(int, low=0, high=131072, example="4096"),
    "similarity": Parameter(float, low=0.01, high=1, example="0.7"),
    "concurrency": Parameter(int, low=1, high=1024, example="8"),
    "budget_dollars": Parameter(float, low=0.01, high=10**6, example="10.0"),
    "budget_tokens": Parameter(int, low=1, high=10**12, example="10000000"),
    "price_in": Parameter(float, low=0, high=10**4, example="0.15"),
    "price_out": Parameter(float, low=0, high=10**4, example="0.60"),
    "translator_price_in": Parameter(float, low=0, high=10**4, example="0.15"),
    "translator_price_out": Parameter(float, low=0, high=10**4, example="0.60"),
    "tokenizers": Parameter(list, example="llama-2-7b,mistral-7b"),
    "total": Parameter(int, low=0, high=10**9, example="100000"),
    "alpha": Parameter(float, low=0, high=1, example="0.5"),
    "published": Parameter(str, choices=("", "bactrian-x-22", "multialpaca")),
    "prompt_template": Parameter(str, choices=("plain", "instruction")),
    "prompt_language": Parameter(str, choices=("en", "own")),
    "max_new_tokens": Parameter(int, low=0, high=4096, example="32"),
    "token_budget": Parameter(int, low=0, high=10**7, example="4096"),
    "runs_dir": Parameter(str, example="runs/demo"),
    "paired": Parameter(bool, example="True"),
}

SYNTHESIZE = """recipe seed_tasks teacher translator languages limit seed rounds prompts
    prompts_first shown_seeds shown_pool tasks_per_prompt similarity echo max_characters
    temperature top_p max_tokens concurrency budget_dollars budget_tokens price_in
    price_out translator_price_in translator_price_out tokenizers max_length total alpha
    published hub_root output_dir""".split()

TRAIN = """base_model instruction_data rank bits seed languages limit hub_root
    output_dir alpha_ratio dropout learning_rate epochs max_steps batch_size max_length
    packing micro_batch dtype attention optimizer recompute heldout eval_steps
    save_steps report_to merge push_to""".split()

EVALUATE = """base_model instruction_data rank bits seed adapters tasks languages shots
    scoring limit hub_root output_dir prompt_template prompt_language max_new_tokens
    token_budget""".split()

FIGURES = "runs_dir tasks languages scoring paired output_dir".split()

NOTEBOOKS: dict[str, tuple[str, ...]] = {
    "01_synthesize": tuple(SYNTHESIZE),
    "02_train": tuple(TRAIN),
    "03_evaluate": tuple(EVALUATE),
    "04_figures": tuple(FIGURES),
}


def check(notebook: str, namespace: Mapping[str, Any]) -> SimpleNamespace:
    """Check a notebook's parameters and return them, converted.

    Args:
        notebook: its name without ending, a key of NOTEBOOKS.
        namespace: the notebook's `globals()`.

    Raises:
        ParameterError: one line with the parameter, what was given, what is allowed.
    """
    for name in injected_names(namespace.get("In", [])):
        check_known(name, tuple(PARAMETERS))  # one file may serve several notebooks
    values = {name: convert(name, namespace[name]) for name in NOTEBOOKS[notebook]}
    check_writable(values["output_dir"])
    return SimpleNamespace(**values)


def injected_names(executed: list[str]) -> list[str]:
    """Return the names that papermill's injected cell sets, from IPython's `In`."""
    cells = [cell for cell in executed if cell.startswith("# Parameters\n")]
    lines = ast.parse(cells[-1]).body if cells else []
    return [line.targets[0].id for line in lines if isinstance(line, ast.Assign)]


def check_known(name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is no parameter: papermill itself would only warn."""
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ParameterError(f"{name}: not a parameter of any notebook; {hint}")


def convert(name: str, value: Any) -> Any:
    """Return a parameter's value in its own type, or say what is wrong with it."""
    parameter = PARAMETERS[name]
    example = f"; e.g. -p {name} {parameter.example}" if parameter.example else ""
    refusal = ParameterError(
        f"{name}: got {value!r}; allowed: {parameter.allowed}{example}"
    )
    if parameter.kind is list:
        return _convert_list(name, value, refusal)
    if parameter.kind is float and type(value) is int:
        value = float(value)
    if type(value) is not parameter.kind:
        raise refusal
    if parameter.choices and value not in parameter.choices:
        raise refusal
    if parameter.low is not None and not parameter.low <= value <= parameter.high:
        raise refusal
    if parameter.pattern and not re.fullmatch(parameter.pattern, value):
        raise refusal
    return value


def _convert_list(name: str, value: Any, refusal: ParameterError) -> list[str]:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise refusal
    if name == "languages":
        return check_languages(value)
    choices = PARAMETERS[name].choices
    if choices and not set(value) <= set(choices):
        raise refusal
    return value


def check_writable(folder: str | Path) -> None:
    """Refuse an output folder that cannot be written, without creating it."""
    place = Path(folder or workspace()).absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ParameterError(
            f"output_dir: got {str(folder)!r}, which cannot be written "
            f"({error.strerror}); allowed: a folder you may write to"
        ) from error


def read(file: str | Path) -> dict[str, Any]:
    """Read a params file: names are checked against all notebooks, values by type.

    Raises:
        ParameterError: for a file that is no mapping, an unknown name, a wrong type.
    """
    loaded = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise ParameterError(f"{file}: got no mapping; allowed: lines `name: value`")
    for name in loaded:
        check_known(name, tuple(PARAMETERS))
    return {name: convert(name, value) for name, value in loaded.items()}


def short_name(name: str) -> str:
    """Shorten a hub id or a path to a name that is safe in a file name."""
    return (
        re.sub(r"[^a-z0-9.-]+", "-", Path(name).name.lower()).strip(".-") or "unnamed"
    )


def cell_name(
    base_model: str, instruction_data: str, rank: int, bits: int, seed: int = 0
) -> str:
    """Name a grid cell: `mistral-7b_bactrian-x-22_r32_4bit`; `_s1` after seed 1.

    Without instruction data it is the base model itself: `mistral-7b_4bit`.
    """
    if not instruction_data:
        return f"{short_name(base_model)}_{bits}bit"
    name = f"{short_name(base_model)}_{short_name(instruction_data)}_r{rank}_{bits}bit"
    return name + (f"_s{seed}" if seed else "")


def workspace() -> Path:
    """Return the repository's root from within it, else the current folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "maple_utils").is_dir():
            return folder
    return here


def output_folder(output_dir: str, *default: str) -> Path:
    """Return `output_dir`, or where it is empty the workspace's `runs/<default>`."""
    return Path(output_dir) if output_dir else workspace().joinpath("runs", *default)


def is_colab() -> bool:
    """Say whether this runs on Google Colab."""
    return "COLAB_RELEASE_TAG" in os.environ
