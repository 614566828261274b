"""Seed tasks: where they come from, and which are left out, with the reason."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import regex
from datasets import load_dataset

from maple_utils.errors import ParameterError, first_line
from maple_utils.instructions.loading import UNREADABLE, read_train

COLUMNS = ["id", "instruction", "input", "output"]

# Bactrian-X leaves code-related instructions out by keywords, which are not published:
# these are ours.
CODE = regex.compile(
    r"\b(?:python|java(?:script)?|typescript|c\+\+|c#|php|perl|rust|golang|kotlin|html|"
    r"css|xml|json|sql|regex|regular expression|bash|shell script|linux|git|latex|"
    r"code|coding|programming|program to|algorithm|compiler|api|pseudocode|database|"
    r"array|linked list|leetcode)\b",
    regex.IGNORECASE,
)

# MultiAlpaca removes 13 of the 175 seeds because they lean on culture (idioms, riddles
# on characters, lyrics); which ones is not published: these are ours.
CULTURE = {
    "seed_task_7": "an English idiom",
    "seed_task_8": "haiku: a form of syllables",
    "seed_task_21": "a riddle on letters",
    "seed_task_49": "an English figure of speech",
    "seed_task_56": "spells coined in English",
    "seed_task_63": "a knock-knock joke",
    "seed_task_65": "English collocations",
    "seed_task_79": "song lyrics",
    "seed_task_84": "a play on words",
    "seed_task_90": "an English idiom",
    "seed_task_93": "puns",
    "seed_task_104": "a knock-knock joke",
    "seed_task_123": "a folksy proverb",
}

# 23 seeds whose input or output keeps its form in every language; likewise ours.
KEEPS_FORM = {
    **dict.fromkeys(
        [f"seed_task_{n}" for n in (28, 31, 35, 37, 58, 61, 117, 132, 144, 164)],
        ("input", "output"),
    ),
    **dict.fromkeys([f"seed_task_{n}" for n in (22, 158)], ("input",)),
    **dict.fromkeys(
        [f"seed_task_{n}" for n in (25, 41, 50, 69, 72, 101, 106, 138, 139, 140, 141)],
        ("output",),
    ),
}

# The 175 tasks of self-instruct, which a mirror may have as a folder.
SELF_INSTRUCT = "self-instruct-seeds"
ADDRESS = (
    "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/seed_tasks.jsonl"
)


def load(name: str, hub_root: str | Path = "") -> pd.DataFrame:
    """Load seed tasks with the columns id, instruction, input, output (English).

    "bactrian-x" is alpaca-52k and dolly-15k, "multialpaca" the 175 self-instruct tasks;
    any other name is a dataset with instruction and output, or in the shape of
    self-instruct (config "en" where it has one). A name that exists under the mirror
    `hub_root` is read there.
    """
    if name == "bactrian-x":
        alpaca = _read("tatsu-lab/alpaca", hub_root)
        dolly = _read("databricks/databricks-dolly-15k", hub_root)
        dolly = dolly.rename(columns={"context": "input", "response": "output"})
        return pd.concat(
            [_table(alpaca, "alpaca"), _table(dolly, "dolly")], ignore_index=True
        )
    name = SELF_INSTRUCT if name == "multialpaca" else name
    return _table(_read(name, hub_root), Path(name).name)


def _read(name: str, hub_root: str | Path) -> pd.DataFrame:
    local = Path(hub_root) / name
    elsewhere = ADDRESS if name == SELF_INSTRUCT else name
    source = str(local) if hub_root and local.is_dir() else elsewhere
    config = "en" if (Path(source) / "en").is_dir() else None
    try:
        if source == ADDRESS:
            return load_dataset("json", data_files=source, split="train").to_pandas()
        return read_train(source, config).to_pandas()
    except UNREADABLE as error:
        raise ParameterError(
            f"seed_tasks: {source!r} cannot be read as a dataset: {first_line(error)}; "
            "allowed: miniature, a folder, a name in hub_root, a dataset id on the hub"
        ) from error


def _table(rows: pd.DataFrame, prefix: str) -> pd.DataFrame:
    ids = [f"{prefix}-{number}" for number in range(len(rows))]
    if "instances" in rows:  # as in self-instruct: the first of several
        first = rows["instances"].str[0]
        rows = rows.assign(input=first.str["input"], output=first.str["output"])
    return checked(rows.assign(id=rows.get("id", ids)))


def checked(seeds: pd.DataFrame | list[dict]) -> pd.DataFrame:
    """Return seeds as a table with exactly COLUMNS, or say what is wrong with them."""
    table = pd.DataFrame(seeds)
    if table.empty:
        raise ParameterError(
            "seeds: got none; allowed: at least one row with an id and an instruction; "
            "e.g. -p seed_tasks miniature"
        )
    if "instruction" not in table:
        raise ParameterError(
            f"seeds: got the columns {', '.join(table)}; needed: instruction (and id, "
            f"input, output if there are any)"
        )
    table = table.reindex(columns=COLUMNS, fill_value="").fillna("").astype(str)
    if table["id"].duplicated().any() or (table["id"] == "").any():
        raise ParameterError(
            "seeds: ids are missing or not unique; allowed: one id a row, since rows "
            "are parallel across languages by it"
        )
    return table


def without_code(seeds: pd.DataFrame) -> pd.DataFrame:
    """Mark code-related seeds: adds the column excluded, a reason or ""."""
    text = seeds["instruction"] + "\n" + seeds["input"]
    found = [CODE.search(item) for item in text]
    return seeds.assign(
        excluded=[f"code: {match[0].lower()}" if match else "" for match in found]
    )


def without_culture(seeds: pd.DataFrame) -> pd.DataFrame:
    """Mark seeds that lean on culture: adds excluded, and keeps_form (field names).

    Those without an output are excluded too: MultiAlpaca shows whole tasks.
    """
    empty = np.where(seeds["output"] == "", "no output", "")
    return seeds.assign(
        excluded=[CULTURE.get(k, e) for k, e in zip(seeds["id"], empty, strict=True)],
        keeps_form=[KEEPS_FORM.get(key, ()) for key in seeds["id"]],
    )


def choose(
    marked: pd.DataFrame, languages: Sequence[str], count: int, seed: int = 0
) -> pd.DataFrame:
    """Draw `count` of the seeds that no rule excludes, in their order; 0 for all.

    Raises ParameterError where there are none, or no language to make data in.
    """
    if not languages:
        raise ParameterError(
            "languages: got none; allowed: at least one; e.g. -p languages sw,hi"
        )
    seeds = marked[marked["excluded"] == ""]
    if seeds.empty:
        raise ParameterError(
            "seeds: none is left after exclusions; allowed: at least one row"
        )
    if count == 0 or count >= len(seeds):
        return seeds
    return seeds.sample(count, random_state=seed).sort_index()
