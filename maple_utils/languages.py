"""Every language of the kit, in one table: `languages.csv`, a line for each.

Codes are ISO 639-1 where there is one; `zh-Hans` and `zh-Hant` stand where the script
of Chinese matters. `joshi` is the class (0 least resources, 5 most) of Joshi et al.
(2020), "The State and Fate of Linguistic Diversity and Inclusion in the NLP World",
from the list that the authors publish with it:
https://microsoft.github.io/linguisticdiversity/assets/lang2tax.txt. (Sinhala stands
there twice; taken is "sinhalese", from the part that was looked through by hand.)
`flores` is the code of FLORES-200, which Belebele's configs use; `iso3` is ISO 639-3,
of the macrolanguage where there is one.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from maple_utils.errors import ParameterError


@dataclass(frozen=True)
class Language:
    """One language, with its names, its kind and the codes that others use for it."""

    code: str
    name: str
    endonym: str
    script: str
    family: str
    joshi: int
    flores: str
    iso3: str
    miniature: float  # share of what the miniature base models read, in %

    @property
    def base(self) -> str:
        """Return the code without a script: `zh` for `zh-Hans`."""
        return self.code.split("-")[0]


LANGUAGES = {
    row["code"]: Language(**row)
    for row in pd.read_csv(Path(__file__).with_suffix(".csv")).to_dict("records")
}


def resource_level(code: str) -> str:
    """Return "low" (Joshi class 0-2), "mid" (3) or "high" (4-5); the split is ours."""
    return ("low", "low", "low", "mid", "high", "high")[LANGUAGES[code].joshi]


def miniature_level(code: str) -> str:
    """Return the level of what the miniature's base models read of a language.

    "high" is 2 % of their texts or more, "mid" 1 % or more, "low" any less.
    """
    share = LANGUAGES[LANGUAGES[code].base].miniature
    return "high" if share >= 2 else "mid" if share >= 1 else "low"


def levels_among(base_models: Iterable[str]) -> Callable[[str], str]:
    """Return how languages are sorted into levels where these models were run.

    The miniature's own reading says it for the miniature, Joshi's classes for others.
    """
    return miniature_level if is_miniature(base_models) else resource_level


def is_miniature(base_models: Iterable[str]) -> bool:
    """Say whether any base model is one of the offline world's, by its name."""
    return any(name.startswith("miniature-") for name in base_models)


def check_languages(
    codes: Iterable[str], allowed: Collection[str] = LANGUAGES
) -> list[str]:
    """Return the codes as a list, each one once, in their order.

    Raises:
        ParameterError: for the first code not in `allowed`, with near matches by code
            or English name.
    """
    chosen = list(dict.fromkeys(codes))
    for code in chosen:
        if code not in allowed:
            raise ParameterError(
                f"languages: got {code!r}; {_near(str(code), allowed)}allowed: "
                f"{', '.join(sorted(allowed))}; e.g. -p languages sw,hi"
            )
    return chosen


def _near(given: str, allowed: Collection[str]) -> str:
    """Return "did you mean ...? " for a name, a near name or a near code, else ""."""
    names = {
        LANGUAGES[code].name.lower(): code for code in allowed if code in LANGUAGES
    }
    by_name = [names[name] for name in get_close_matches(given.lower(), names, n=2)]
    by_code = get_close_matches(given.replace("_", "-"), allowed, n=2, cutoff=0.65)
    near = list(dict.fromkeys(by_name + by_code))
    return f"did you mean {' or '.join(near)}? " if near else ""
