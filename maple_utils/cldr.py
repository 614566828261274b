"""Things and the words that go with them, in over fifty languages, from Unicode CLDR.

CLDR names the things that emoji show and lists keywords for each, in every language
written by people who speak it. The extract that ships, `data/words`, holds the task
`words` (test.parquet, shots.parquet: one right word of four) and, of other things,
what instruction data can be made of (training.parquet).

    python -m maple_utils.cldr write OUT [--languages sw ta]
    python -m maple_utils.cldr extract cldr-annotations-full-48.2.0.tgz

The first makes the instruction data, the second the extract, from what
`npm pack cldr-annotations-full@48.2.0` downloads.
"""

import argparse
import json
import random
import tarfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from math import log2
from pathlib import Path
from typing import IO, cast

import pandas as pd
from datasets import Dataset
from tqdm.auto import tqdm

from maple_utils.instructions import cards
from maple_utils.languages import LANGUAGES, check_languages
from maple_utils.tasks.sources import SHIPPED

DATA = SHIPPED / "words"
TEST, TRAINING = 200, 400  # things; shots are drawn from what every language has left
KEPT = 4  # keywords per thing that instruction data are made of
LONGEST_NAME, LONGEST_WORD = 30, 20  # characters
SOURCE = "Unicode CLDR 48.2.0, annotations (Unicode-3.0)"
NOTICE = (
    "Names and words are from Unicode CLDR, copyright 2004-2026 Unicode, Inc., under "
    "the Unicode License v3, https://www.unicode.org/license.txt."
)


@dataclass(frozen=True)
class Thing:
    """What CLDR says of one thing in one language."""

    name: str
    keywords: tuple[str, ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Return the keywords that cannot be told from the letters of the name."""
        return tuple(
            word
            for word in self.keywords
            if len(word) <= LONGEST_WORD
            and not _has_digit(word)
            and not alike(word, self.name)
        )


def _has_digit(word: str) -> bool:  # as times of the clock have
    return any(map(str.isdigit, word))


Things = Mapping[str, Thing]  # of one language, by character


def alike(one: str, other: str) -> bool:
    """Say whether half of the shorter text or more stands in the other in one piece.

    This serves scripts with and without spaces: "cow" and "cowboy", 牛 and 公牛.
    """
    a, b = one.casefold(), other.casefold()
    found = SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    return 2 * found.size >= min(len(a), len(b))


def training(languages: Sequence[str] = ()) -> pd.DataFrame:
    """Return the things to train on: language, id (English name), name, words, wrong.

    `words` are up to four that go with it, `wrong` three that do not. Raises
    ParameterError for a language that CLDR lacks.
    """
    table = pd.read_parquet(DATA / "training.parquet")
    chosen = check_languages(languages, table["language"].unique().tolist())
    return table[table["language"].isin(chosen)] if chosen else table


def instruction_rows(table: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Yield the instruction data of what `training` returns, two or three per thing.

    A row has the columns of `instructions.load`; its id is that of the same row in the
    other languages. Instructions are in English, the rest is in the row's language.
    """
    english = {row.id: row.name for row in training(["en"]).itertuples(index=False)}
    for row in table.itertuples(index=False):
        options = [row.words[0], *row.wrong]
        random.Random(row.id).shuffle(options)  # alike in all languages
        listed = "\n".join([row.name, *(f"- {option}" for option in options)])
        tasks = {
            "words": ("Name words that go with this.", row.name, ", ".join(row.words)),
            "choose": ("Which of the words goes with it?", listed, row.words[0]),
        }
        if row.language != "en" and row.id in english:
            name = LANGUAGES[row.language].name
            tasks["say"] = (f"Say it in {name}.", english[row.id], row.name)
        for kind, texts in tasks.items():
            named = zip(("instruction", "input", "output"), texts, strict=True)
            yield {"language": row.language, "id": f"{kind}: {row.id}", **dict(named)}


def write(folder: Path, languages: Sequence[str]) -> Path:
    """Write the instruction data with a card, as notebook 01 does."""
    rows = Dataset.from_list(list(instruction_rows(training(languages))))
    made = {"made by": "python -m maple_utils.cldr write", "from": SOURCE}
    return cards.write(rows, folder, made, notes=NOTICE)


def read_archive(archive: Path) -> dict[str, Things]:
    """Return the things of every language of our table that the archive has.

    Only what one character shows is taken: no flags, skin tones and combinations.
    """
    found: dict[str, Things] = {}
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        for code in LANGUAGES:
            member = f"package/annotations/{code}/annotations.json"
            if "-" in code or member not in names:
                continue
            file = cast(IO[bytes], tar.extractfile(member))
            whole = json.load(file)["annotations"]["annotations"]
            found[code] = {
                character: Thing(entry["tts"][0], tuple(entry["default"]))
                for character, entry in whole.items()
                if _is_picture(character) and {"tts", "default"} <= set(entry)
            }
    return found


def _is_picture(text: str) -> bool:
    plain = text.removesuffix("\ufe0f")
    letter = 0x1F1E6 <= ord(plain[0]) <= 0x1F1FF  # of a country, for its flag
    return len(plain) == 1 and unicodedata.category(plain) == "So" and not letter


def usable(things: Things, character: str) -> bool:
    """Say whether a language has a short name and a word to ask for."""
    thing = things.get(character)
    return bool(thing and len(thing.name) <= LONGEST_NAME and thing.words)


def owners(things: Things) -> dict[str, set[str]]:
    """Return for every keyword the characters that have it."""
    index: dict[str, set[str]] = defaultdict(set)
    for character, thing in things.items():
        for word in thing.keywords:
            index[word].add(character)
    return index


def four_words(
    character: str,
    things: Things,
    index: Mapping[str, set[str]],
    near: set[str],
    seed: str,
) -> tuple[str, ...]:
    """Draw a word that goes with a thing, and three that do not.

    Args:
        character: of the thing.
        things: of the language.
        index: its `owners`.
        near: other characters whose keywords may go with it as well.
        seed: the same seed draws the same words.

    Returns:
        The right word, then wrong ones: of 300 drawn keywords those that are most like
        it in length and in how many things have them.
    """
    rng, thing = random.Random(seed), things[character]
    right = rng.choice(thing.words)
    near = near | {other for word in thing.keywords for other in index[word]}
    barred = {word for other in near & set(things) for word in things[other].keywords}

    def unlike(word: str) -> float:
        share = log2(len(index[word]) / len(index[right]))
        return abs(len(word) - len(right)) / 2 + abs(share)

    wrong: list[str] = []
    words = [w for w in sorted(set(index) - barred) if not _has_digit(w)]
    drawn = rng.sample(words, min(300, len(words)))
    for word in sorted(drawn, key=unlike):
        if not any(alike(word, told) for told in (thing.name, right, *wrong)):
            wrong.append(word)
        if len(wrong) == 3:
            break
    return (right, *wrong)


def tables(found: Mapping[str, Things]) -> dict[str, pd.DataFrame]:
    """Return the extract: test and shots of `words`, and training.

    The test and the shots are of things that every language can be asked about, the
    same ones in all; training is of those that most of the others can.
    """
    english = found["en"]
    in_english = owners(english)
    known = {c: sum(usable(things, c) for things in found.values()) for c in english}
    drawn = random.Random("split").sample(sorted(known), len(known))
    common = [c for c in drawn if known[c] == len(found)]
    others = sorted(set(drawn) - set(common), key=lambda c: (-known[c], c))
    split = dict.fromkeys(others[:TRAINING], "training")
    split |= dict.fromkeys(common[:TEST], "test")
    split |= dict.fromkeys(common[TEST:], "shots")
    near = {
        c: {other for word in english[c].keywords for other in in_english[word]}
        for c in split
    }
    rows: dict[str, list[dict]] = defaultdict(list)
    for language, things in tqdm(found.items(), "Languages"):
        index = owners(things)
        for place, character in enumerate(split):
            if not usable(things, character):
                continue
            drawn_by = f"{language} {character}"
            right, *wrong = four_words(
                character, things, index, near[character], drawn_by
            )
            thing, part = things[character], split[character]
            row = {"language": language, "id": english[character].name}
            others = [word for word in thing.words if word != right]
            row |= {"name": thing.name, "words": [right, *others][:KEPT]}
            if part == "training":
                row["wrong"] = wrong
            else:
                label = place % 4
                row |= {"options": [*wrong[:label], right, *wrong[label:]]}
                row["label"] = label
            rows[part].append(row)
    return {part: pd.DataFrame(those) for part, those in rows.items()}


def main() -> None:
    """Write the instruction data, or the extract."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    written = commands.add_parser("write", help="make the instruction data")
    written.add_argument("out", type=Path)
    written.add_argument("--languages", nargs="*", default=[])
    extracted = commands.add_parser("extract", help="make the extract that ships")
    extracted.add_argument("archive", type=Path)
    options = parser.parse_args()
    if options.command == "write":
        print(write(options.out, options.languages))
        return
    for name, table in tables(read_archive(options.archive)).items():
        table.to_parquet(DATA / f"{name}.parquet", index=False, compression="zstd")
        print(f"{name}: {len(table):,} rows, {table['language'].nunique()} languages")


if __name__ == "__main__":
    main()
