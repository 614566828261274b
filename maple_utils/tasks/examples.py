"""A row of a published dataset as an example, with its id and what it shares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from maple_utils.errors import ParameterError
from maple_utils.tasks.sources import Row
from maple_utils.words import natural_key


@dataclass(frozen=True)
class Example:
    """One item; `label` is the right option's place, no `references` = no answer.

    The same question has the same `id` in every language of a parallel test. `cluster`
    is the first id that asks about the same passage.
    """

    id: str
    context: str
    question: str = ""
    options: tuple[str, ...] = ()
    label: int = -1
    references: tuple[str, ...] = ()
    cluster: str = ""

    @property
    def right_answers(self) -> tuple[str, ...]:
        """Return what is right: the labelled option, else the references."""
        return (self.options[self.label],) if self.options else self.references


def _copa(row: Row) -> Example:
    options = (row["choice1"], row["choice2"])
    return Example("", row["premise"], row["question"], options, int(row["label"]))


def _belebele(row: Row) -> Example:
    """Rows stand in another order in every language: link and number are the id."""
    options = tuple(row[f"mc_answer{number}"] for number in range(1, 5))
    label = int(row["correct_answer_num"]) - 1
    name = f"{row['link']}#{row['question_number']}"
    return Example(name, row["flores_passage"], row["question"], options, label)


def _squad(row: Row) -> Example:
    """An empty answer text, as in IndicQA's unanswerable rows, is no reference."""
    texts = dict.fromkeys(text for text in row["answers"]["text"] if text.strip())
    return Example("", row["context"], row["question"], references=tuple(texts))


def _xlsum(row: Row) -> Example:
    return Example("", row["text"], references=(row["summary"],))


def _xnli(row: Row) -> Example:
    """Labels: 0 entailment, 1 neutral, 2 contradiction."""
    options = ("True", "Neither", "False")
    return Example("", row["premise"], row["hypothesis"], options, int(row["label"]))


def _pawsx(row: Row) -> Example:
    options = ("No", "Yes")
    return Example("", row["sentence1"], row["sentence2"], options, int(row["label"]))


def _story(row: Row) -> Example:
    story = " ".join(row[f"input_sentence_{number}"] for number in range(1, 5))
    options = (row["sentence_quiz1"], row["sentence_quiz2"])
    return Example("", story, "", options, int(row["answer_right_ending"]) - 1)


def _words(row: Row) -> Example:
    return Example(row["id"], row["name"], "", tuple(row["options"]), int(row["label"]))


READERS: dict[str, Callable[[Row], Example]] = {
    "copa": _copa,
    "belebele": _belebele,
    "squad": _squad,
    "xlsum": _xlsum,
    "xnli": _xnli,
    "pawsx": _pawsx,
    "story": _story,
    "words": _words,
}
ID_COLUMNS = ("id", "idx", "story_id")  # else a row's place


def read_examples(
    rows: Sequence[Row], read: str, first_id: int = 0, where: str = ""
) -> list[Example]:
    """Return the rows as examples in the order of their ids, clusters filled in.

    Args:
        rows: as `sources.load_rows` returns them.
        read: a name in READERS.
        first_id: the number of the first row, where ids do not begin at 0.
        where: names the rows in an error.

    Raises:
        ParameterError: for the first row without the columns, with an empty option or
            a label out of range, or with the id of another.
    """
    examples: dict[str, Example] = {}
    for place, row in enumerate(rows):
        try:
            example = READERS[read](row)
            texts = (example.context, example.question, *example.references)
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("a text is missing")
            if not all(option.strip() for option in example.options):
                raise ValueError("an option is empty")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ParameterError(
                f"tasks: {where}, row {place}: {error!r}; there are {', '.join(row)}"
            ) from error
        if example.options and not 0 <= example.label < len(example.options):
            raise ParameterError(
                f"tasks: {where}, row {place} has the label {example.label}; allowed: "
                f"0 to {len(example.options) - 1}"
            )
        name = example.id or _identity(row, place, first_id)
        if name in examples:
            raise ParameterError(f"tasks: {where}, row {place}: its id {name} is twice")
        examples[name] = replace(example, id=name)
    ordered = sorted(examples.values(), key=lambda example: natural_key(example.id))
    first: dict[str, str] = {}
    return [
        replace(
            example,
            cluster=first.setdefault(example.context or example.id, example.id),
        )
        for example in ordered
    ]


def _identity(row: Row, place: int, first_id: int) -> str:
    found = next((row[name] for name in ID_COLUMNS if name in row), place)
    return str(int(found) - first_id) if str(found).isdecimal() else str(found)


def draw(
    pool: Sequence[Example], wanted: int, rng: np.random.Generator
) -> list[Example]:
    """Draw `wanted` examples, in turn from each kind, in random order.

    A kind is a label, or whether a question has an answer. No two are about the same
    passage, as long as there are others.
    """
    if wanted > len(pool):
        raise ParameterError(
            f"shots: got {wanted}; allowed: up to the {len(pool)} rows at hand"
        )
    seen: set[str] = set()
    new: list[Example] = []
    others: list[Example] = []
    for place in rng.permutation(len(pool)):
        example = pool[place]
        (others if example.cluster in seen else new).append(example)
        seen.add(example.cluster)
    queues: dict[tuple, list[Example]] = {}
    for example in [*new, *others]:
        kind = (example.label, bool(example.references))
        queues.setdefault(kind, []).append(example)
    turns = [example for turn in zip_longest(*queues.values()) for example in turn]
    chosen = [example for example in turns if example is not None][:wanted]
    return [chosen[place] for place in rng.permutation(wanted)]
