"""Made-up runs whose truth is known: what the claims are calibrated and planned on.

Every run has an ability per task and language, and every question a difficulty: an
answer is right where the ability is above it (a normal-ogive item-response model) or by
chance. Translations of a question, questions on one passage, and runs share parts of
the difficulty, as real ones do. Effects and deviations are in points where the scale is
steepest; near chance and near the top they come out smaller.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import pandas as pd
from scipy import stats

from maple_utils import results
from maple_utils.claims.contrasts import WHERE
from maple_utils.claims.evidence import MARGIN
from maple_utils.languages import resource_level
from maple_utils.params import CELL, Cell
from maple_utils.tasks import METRICS, TASKS

POINT = 1 / 39.9  # of ability: the normal density at 0 is 0.399
CHANCE = {"choice": 0.25, "answer": 0.15, "summary": 0.0}
TOP = {"choice": 1.0, "answer": 1.0, "summary": 0.5}
# Variances of a question's difficulty: of its passage, of itself in all languages, in
# its own, for one base model. What is left of 1 is drawn anew for every run. Assumed.
PASSAGE, QUESTION, TRANSLATION, BASE_MODEL = 0.1, 0.3, 0.2, 0.2
PASSAGE_SIZE = 2  # questions
START = 8  # the rank from which doublings are counted
TOKENS = 1_000_000  # that every run is trained on
LEAD = 0.1  # of larger models over base models


@dataclass(frozen=True)
class Draw:
    """An effect that varies by chance, drawn per value of these columns."""

    sd: float  # points
    of: str  # "score", "change" by finetuning, or "slope" per doubling of rank
    runs: str  # a column of the runs, "run" for each, "" for all alike
    places: tuple[str, ...] = ()  # columns among task, language and level


# Where a language's effect would be English's own truth, English has none.
DRAWS = {
    "task": Draw(8.0, "score", "", ("task",)),
    "language": Draw(5.0, "score", "", ("language",)),
    "place": Draw(4.0, "score", "", ("task", "language")),
    "base_language": Draw(1.0, "score", "base_model", ("language",)),
    "base": Draw(1.5, "score", "base_model", ("task", "language")),
    "bits": Draw(1.0, "score", "bits", ("task", "language")),
    "data_language": Draw(1.0, "change", "instruction_data", ("language",)),
    "data": Draw(1.5, "change", "instruction_data", ("task", "language")),
    "run": Draw(0.5, "change", "run"),
    "run_language": Draw(0.3, "change", "run", ("language",)),
    "language_slope": Draw(0.4, "slope", "", ("language",)),
    "task_slope": Draw(0.3, "slope", "", ("task",)),
    "place_slope": Draw(0.2, "slope", "", ("task", "language")),
    # What the claims assume away: see benchmarks/README.md.
    "task_level_slope": Draw(0.0, "slope", "", ("task", "level")),
    "base_level_slope": Draw(0.0, "slope", "base_model", ("level",)),
    "rank_level": Draw(0.0, "change", "rank", ("level",)),
    "seed_language": Draw(0.0, "change", "seed", ("language",)),
}


@dataclass(frozen=True)
class World:
    """What is true of the runs, in points; by default, that nothing happens."""

    rank_low: float = 0.0  # per doubling of rank, in low-resource languages
    rank_seen: float = 0.0  # per doubling, in languages of the finetuning data
    bits_low: float = 0.0  # from fewer to 16 bits, in finetuned low-resource languages
    gain: float = 0.0  # by finetuning, everywhere
    gain_low: float = 0.0  # beyond it, in low-resource languages
    gain_english: float = 0.0  # beyond it, in English
    mistral: float = 0.0  # Mistral's lead
    low_behind: float = 0.0  # low-resource languages behind before finetuning
    low_spread: float = 1.0  # times as much variation in slopes there
    sd: Mapping[str, float] = field(default_factory=dict)  # in place of those of DRAWS


@dataclass(frozen=True)
class Plan:
    """What is run, and what is asked."""

    cells: Sequence[Cell]  # with their base models
    languages: Mapping[str, Sequence[str]]  # by task
    rows: int  # questions per task and language
    trained: Mapping[str, Sequence[str]]  # languages by instruction data
    level: Callable[[str], str] = resource_level

    def runs(self) -> pd.DataFrame:
        """Return a row per run: the columns of CELL."""
        return pd.DataFrame([cell.asdict() for cell in self.cells])

    def places(self) -> pd.DataFrame:
        """Return a row per task and language, with level and kind of task."""
        pairs = [
            (task, code) for task, codes in self.languages.items() for code in codes
        ]
        table = pd.DataFrame(pairs, columns=["task", "language"])
        kinds = table["task"].map(lambda task: TASKS[task].kind)
        return table.assign(level=table["language"].map(self.level), kind=kinds)


def abilities(world: World, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Return the ability of each run (rows) in each place (columns)."""
    runs, places = plan.runs(), plan.places()
    low = places["level"].eq("low").to_numpy()
    tuned = runs["rank"].gt(0).to_numpy()[:, None]
    doublings = np.log2(runs["rank"].clip(lower=START) / START).to_numpy()[:, None]
    parts = ("score", "change", "slope")
    varied = {of: np.zeros((len(runs), len(places))) for of in parts}
    for name, draw in DRAWS.items():
        varied[draw.of] += _drawn(draw, world.sd.get(name, draw.sd), runs, places, rng)
    varied["slope"] *= np.where(low, world.low_spread, 1.0)
    in_data = [
        places["language"].isin(plan.trained.get(data, ()))
        for data in runs["instruction_data"]
    ]
    slope = varied["slope"] + world.rank_low * low + world.rank_seen * np.array(in_data)
    most = runs["bits"].eq(16).to_numpy()[:, None]
    change = varied["change"] + world.gain + world.gain_low * low
    change += world.gain_english * places["language"].eq("en").to_numpy()
    change += world.bits_low * low * most + doublings * slope
    score = varied["score"] - world.low_behind * low
    score += (
        world.mistral * runs["base_model"].str.contains("mistral").to_numpy()[:, None]
    )
    return POINT * (score + tuned * change)


def _drawn(
    draw: Draw,
    sd: float,
    runs: pd.DataFrame,
    places: pd.DataFrame,
    rng: np.random.Generator,
) -> np.ndarray:
    row = np.arange(len(runs)) if draw.runs == "run" else np.zeros(len(runs), int)
    if draw.runs in runs:
        row = pd.factorize(runs[draw.runs])[0]
    column = np.zeros(len(places), int)
    if draw.places:
        column = places.groupby([*draw.places]).ngroup().to_numpy()
    values = sd * rng.standard_normal((row.max() + 1, column.max() + 1))
    drawn = values[np.ix_(row, column)]
    if "language" in draw.places and draw.runs not in ("run", "seed"):
        drawn[:, places["language"].eq("en").to_numpy()] = 0
    return drawn


def expected(ability: np.ndarray, places: pd.DataFrame) -> np.ndarray:
    """Return the scores of these abilities over endlessly many questions (0 to 1)."""
    low, top = (places["kind"].map(by).to_numpy() for by in (CHANCE, TOP))
    return low + (top - low) * stats.norm.cdf(ability)


def exact_scores(plan: Plan, truth: np.ndarray, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with the value that endlessly many questions would give.

    Their standard errors stay those of the questions, as the scale of a task needs.
    `truth` has the expected scores by run and place, as `expected` returns them.
    """
    row = pd.MultiIndex.from_frame(plan.runs()[CELL])
    column = pd.MultiIndex.from_frame(plan.places()[WHERE])
    rows = row.get_indexer(pd.MultiIndex.from_frame(scores[CELL]))
    columns = column.get_indexer(pd.MultiIndex.from_frame(scores[WHERE]))
    return scores.assign(value=truth[rows, columns])


def answers(
    ability: np.ndarray, plan: Plan, rng: np.random.Generator
) -> Iterator[pd.DataFrame]:
    """Yield how every run does on the same questions: a predictions table each."""
    runs, places = plan.runs(), plan.places()
    size, n_places = plan.rows, len(places)
    task = pd.factorize(places["task"])[0]
    base = pd.factorize(runs["base_model"])[0]
    passage = np.arange(size) // PASSAGE_SIZE
    own = 1 - PASSAGE - QUESTION - TRANSLATION - BASE_MODEL
    normal = rng.standard_normal
    shared = np.sqrt(PASSAGE) * normal((task.max() + 1, size))[:, passage]
    shared += np.sqrt(QUESTION) * normal((task.max() + 1, size))
    for_base = np.sqrt(BASE_MODEL) * normal((base.max() + 1, n_places, size))
    for_base += shared[task] + np.sqrt(TRANSLATION) * normal((n_places, size))
    shape = (len(runs), n_places, size)
    difficulty = for_base[base] + np.sqrt(own) * normal(shape)
    known = difficulty < ability[:, :, None]
    kind = places["kind"].to_numpy()[:, None]
    luck = rng.random(shape)
    value = known | (luck < CHANCE["choice"])  # guessed right
    value = np.where(
        kind == "answer", np.where(known, 1, 2 * CHANCE["answer"] * luck), value
    )
    # So that the mean is half the probability of knowing: Φ(√2 a - u) over a normal u.
    overlap = TOP["summary"] * stats.norm.cdf(
        np.sqrt(2) * ability[:, :, None] - difficulty
    )
    value = np.where(kind == "summary", overlap, value)
    return _tidy(value, runs, places, passage)


def _tidy(
    values: np.ndarray, runs: pd.DataFrame, places: pd.DataFrame, passage: np.ndarray
) -> Iterator[pd.DataFrame]:
    """Yield a predictions table per run from values by run, place and question."""
    size = len(passage)
    table = places.loc[places.index.repeat(size), ["task", "language", "kind"]]
    numbers = np.tile(np.arange(size), len(places)).astype(str)
    table = table.reset_index(drop=True).assign(
        scoring=np.where(table["kind"] == "choice", "likelihood", "generate"),
        example=numbers,
        cluster=np.tile(passage, len(places)).astype(str),
        **{"prediction": "", "references": "", "shots": 0.0, "context_cut": False},
        **{"format_failure": False, "cut_off": False},
        **dict.fromkeys(results.METRICS, np.nan),
    )
    of_kind = {kind: table["kind"].eq(kind) for kind in METRICS}
    for run, value in zip(runs.to_dict("records"), values, strict=True):
        judged = {
            METRICS[kind][0]: pd.Series(value.ravel()).where(own)
            for kind, own in of_kind.items()
        }
        yield table.assign(**run, **judged)[results.PREDICTIONS_COLUMNS]


def larger_model(exact: pd.DataFrame, almost: bool = False) -> pd.DataFrame:
    """Return a model ahead of base models, or the margin ahead of Mistral's runs.

    `exact` has the columns of `primary_scores`, with expected scores as values.
    """
    rows = exact[exact["rank"] == 0]
    if almost:
        rows = exact[exact["base_model"].str.contains("mistral")]
    ahead = MARGIN / 100 if almost else LEAD
    keys = [*WHERE, "metric", "scoring"]
    table = rows.groupby(keys, as_index=False)["value"].mean()
    table["value"] += ahead
    return table.assign(model="GPT-4", larger=True, stderr=0.0, failure="")


def training(plan: Plan) -> pd.DataFrame:
    """Return what the claims read of `results.training_records` of these runs."""
    rows = [
        cell.asdict()
        | {"language": code, "tokens": TOKENS, "tokens_per_word": tokens_per_word(code)}
        for cell in plan.cells
        for code in plan.trained.get(cell.instruction_data, ())
    ]
    return pd.DataFrame(rows)


def tokens_per_word(language: str) -> float:
    """Return how many tokens a word of a language takes here."""
    return 1.5 + crc32(language.encode()) % 100 / 50
