"""The tidy tables on disk: write them whole, score them, collect them, check them.

`predictions.parquet` has a row per example and scoring, one column per metric that
applies; `scores.parquet` has a row per (task, language, scoring, metric). Values are
fractions from 0 to 1, bits per byte apart.

    python -m maple_utils.results [RUNS]   # prints the means of all runs in a folder
"""

import argparse
import json
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from maple_utils import files, rouge, tasks
from maple_utils.languages import LANGUAGES
from maple_utils.metrics import standard_errors
from maple_utils.params import CELL, Cell
from maple_utils.words import natural_key

METRICS = list(dict.fromkeys(m for names in tasks.METRICS.values() for m in names))
MAIN_METRICS = tasks.MAIN_METRICS
SCORES_COLUMNS = [
    *CELL,
    *("task", "language", "scoring", "metric"),
    *("value", "stderr", "n", "format_failures", "cut_off", "shots", "cutter"),
]
PREDICTIONS_COLUMNS = [
    *CELL,
    *("task", "language", "scoring", "example", "cluster", "shots", "context_cut"),
    *("prediction", "references", "format_failure", "cut_off"),
    *METRICS,
]
OVERLAP_COLUMNS = [
    *("task", "language", "items", "overlapping", "share", "too_short", "note")
]
_NAMES = ["base_model", "instruction_data", "task", "language", "scoring"]
_NAMES += ["example", "cluster"]
_JUDGEMENTS = [*_NAMES, "rank", "bits", "seed", *MAIN_METRICS]
_DATA = Path(__file__).parent / "data"  # what the package ships
_TYPES = {"rank": "int64", "bits": "int64", "seed": "int64", "instruction_data": "str"}


def write_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Check the columns of a predictions table and write it as parquet."""
    absent = set(PREDICTIONS_COLUMNS) - set(predictions)
    if absent:
        raise ValueError(f"predictions lack {', '.join(sorted(absent))}")
    table = predictions[PREDICTIONS_COLUMNS].astype(_TYPES)
    with files.atomic(path) as draft:
        table.to_parquet(draft, index=False)


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Check a scores table and write it as parquet."""
    table = validate(scores)
    with files.atomic(path) as draft:
        table.to_parquet(draft, index=False)


def scores_from_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each metric per (cell, task, language, scoring).

    `stderr` takes examples on one passage together, see `metrics.standard_errors`; `n`
    counts examples, `format_failures` those whose answer had no valid form, `cut_off`
    those whose answer ended at the limit of new tokens; `shots` is the mean number
    shown; `cutter` names what cut the words of a summary.
    """
    keys = [*CELL, "task", "language", "scoring"]
    judged = [metric for metric in METRICS if predictions[metric].notna().any()]
    long = predictions.astype(_TYPES).melt(
        [*keys, "cluster", "format_failure", "cut_off", "shots"], judged, "metric"
    )
    long, keys = long.dropna(subset="value"), [*keys, "metric"]
    scores = long.groupby(keys, dropna=False).agg(
        value=("value", "mean"),
        n=("value", "size"),
        format_failures=("format_failure", "sum"),
        cut_off=("cut_off", "sum"),
        shots=("shots", "mean"),
    )
    scores["stderr"] = standard_errors(long, keys, "value")
    scores = scores.reset_index()
    summaries = scores["metric"] == "rouge_l"
    scores["cutter"] = scores["language"].map(rouge.cutter).where(summaries, "")
    return validate(scores)


def validate(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its columns in order and their types set.

    Raises:
        ValueError: in one line, for absent columns, a language that the table of
            languages lacks, or a value outside its range.
    """
    absent = [column for column in SCORES_COLUMNS if column not in scores]
    if absent:
        raise ValueError(f"scores lack {', '.join(absent)}")
    unknown = sorted(set(scores["language"]) - set(LANGUAGES))
    if unknown:
        raise ValueError(
            f"language: got {', '.join(map(repr, unknown))}; allowed: those of "
            "maple_utils/languages.csv; add a line there"
        )
    table = scores[SCORES_COLUMNS].astype(_TYPES).reset_index(drop=True)
    fractions = table.loc[table["metric"] != "bits_per_byte", "value"].dropna()
    if not fractions.between(0, 1).all():
        raise ValueError(f"value: got {fractions.max():g}; allowed: fractions, 0 to 1")
    return table


def collect(runs_dir: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return all scores below `runs_dir`, and a line per file that was skipped.

    Files are runs_dir/CELL/scores.parquet. One that is damaged, or no scores table, is
    named and skipped whole.
    """
    tables, problems = [], []
    for file in sorted(Path(runs_dir).glob("*/scores.parquet")):
        try:
            tables.append(validate(pd.read_parquet(file)))
        except (OSError, ValueError) as error:
            problems.append(f"{file}: {str(error).splitlines()[0]}")
    if not tables:
        return pd.DataFrame(columns=SCORES_COLUMNS), problems
    return pd.concat(tables, ignore_index=True), problems


def training_records(runs_dir: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return what every runs_dir/CELL/train.json says, and a line per skipped file.

    Returns:
        A row per run and language: cell, the columns of CELL, seconds (of training),
        language, before and after (bits per byte of held-out responses),
        tokens_per_word of the base model's tokenizer in the training data, and tokens
        (read in training, all languages together).
    """
    rows, problems = [], []
    for file in sorted(Path(runs_dir).glob("*/train.json")):
        try:
            rows.extend(_heldout(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{file}: no record of training ({error})")
    columns = ["cell", *CELL, "seconds", "language", "before", "after"]
    columns += ["tokens_per_word", "tokens"]
    return pd.DataFrame(rows, columns=columns), problems


def overlaps(runs_dir: Path) -> pd.DataFrame:
    """Return which part of the tests every runs_dir/CELL/train.json found in its data.

    Returns:
        A row per run, task and language: the columns of CELL and those of
        `instructions.contamination.compare`. Older records have none, and damaged files
        are left to `training_records` to name.
    """
    rows: list[dict] = []
    for file in sorted(Path(runs_dir).glob("*/train.json")):
        with suppress(OSError, ValueError, KeyError):
            record = json.loads(file.read_text(encoding="utf-8"))
            cell = {name: record["parameters"][name] for name in CELL}
            rows.extend(cell | row for row in record["overlap"])
    table = pd.DataFrame(rows, columns=[*CELL, *OVERLAP_COLUMNS])
    return table.astype(_TYPES | {"share": "float64"})


def used_parameters(runs_dir: Path) -> dict[str, str]:
    """Return all values that each of 02's parameters had in the runs below `runs_dir`.

    Where the device chose, what it chose. `training_records` names damaged files.
    """
    found: dict[str, set[str]] = {}
    for file in sorted(Path(runs_dir).glob("*/train.json")):
        with suppress(OSError, ValueError, KeyError):
            record = json.loads(file.read_text(encoding="utf-8"))
            for name, value in (record["parameters"] | record["plan"]).items():
                found.setdefault(name, set()).add(str(value))
    return {n: ", ".join(sorted(v, key=natural_key)) for n, v in found.items()}


def _heldout(record: dict) -> list[dict]:
    about = {name: record["parameters"][name] for name in CELL}
    about |= {"cell": record["cell"], "seconds": record["train"]["seconds"]}
    about["tokens"] = record["train"]["tokens"]
    tokens = record["data"]["tokens_per_word"]
    return [
        about | {"language": code, **bits, "tokens_per_word": tokens[code]}
        for code, bits in record["heldout_bits_per_byte"].items()
    ]


def judgements(file: Path) -> pa.Table:
    """Return a predictions table without its texts: ids of examples, and marks."""
    table = parquet.read_table(file, columns=_JUDGEMENTS, read_dictionary=_NAMES)
    return table.select(_JUDGEMENTS)


def predictions(runs_dir: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return how every example below `runs_dir` was judged, without the answers.

    Texts are categories, since a grid has millions of rows. And a line per file that
    was skipped, as `collect` does.
    """
    tables, problems = [], []
    for file in sorted(Path(runs_dir).glob("*/predictions.parquet")):
        try:
            tables.append(judgements(file))
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{file}: {str(error).splitlines()[0]}")
    if not tables:
        return pd.DataFrame(columns=_JUDGEMENTS), problems
    whole = pa.concat_tables(tables, promote_options="permissive")
    return whole.unify_dictionaries().to_pandas(), problems


def shipped() -> pd.DataFrame:
    """Return the results table that ships with the package: the miniature grid."""
    return validate(pd.read_parquet(_DATA / "miniature_scores.parquet"))


def shipped_training() -> pd.DataFrame:
    """Return what `training_records` says of the runs of `shipped`."""
    return pd.read_parquet(_DATA / "miniature_training.parquet")


def main_metrics(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each task's first metric, without what stands beside it."""
    return scores[scores["metric"].isin(MAIN_METRICS)]


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Return main scores, means over languages: cells x (task, scoring)."""
    main = main_metrics(scores)
    names = [Cell(*row).name for row in main[CELL].itertuples(index=False)]
    cells = pd.Series(names, main.index, "str", "mean over languages")
    wide = main.pivot_table("value", cells, ["task", "scoring"], sort=False)
    return wide.loc[sorted(wide.index, key=natural_key)]


def main() -> None:
    """Print the summary of a folder of runs."""
    parser = argparse.ArgumentParser(description="Summarise a folder of runs.")
    parser.add_argument("runs", nargs="?", type=Path, default=Path("runs"))
    scores, problems = collect(parser.parse_args().runs)
    for problem in problems:
        print(problem)
    print(summary(scores).round(3).to_string(na_rep=""))


if __name__ == "__main__":
    main()
