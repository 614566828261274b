"""Every language of the kit, in one table.

Codes are ISO 639-1 where there is one; `zh-Hans` and `zh-Hant` stand where the script
of Chinese matters. `joshi` is the class (0 least resources, 5 most) of Joshi et al.
(2020), "The State and Fate of Linguistic Diversity and Inclusion in the NLP World",
from the list that the authors publish with it:
https://microsoft.github.io/linguisticdiversity/assets/lang2tax.txt. `flores` is the
code of FLORES-200, which Belebele's configs use; `iso3` is ISO 639-3, of the
macrolanguage where there is one.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

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

    @property
    def base(self) -> str:
        """Return the code without a script: `zh` for `zh-Hans`."""
        return self.code.split("-")[0]


# code | name | endonym | script | family | Joshi class | FLORES-200 | ISO 639-3
_TABLE = """
ar | Arabic | العربية | Arabic | Afro-Asiatic | 5 | arb_Arab | ara
as | Assamese | অসমীয়া | Bengali | Indo-European | 1 | asm_Beng | asm
bg | Bulgarian | български | Cyrillic | Indo-European | 3 | bul_Cyrl | bul
bn | Bengali | বাংলা | Bengali | Indo-European | 3 | ben_Beng | ben
cs | Czech | čeština | Latin | Indo-European | 4 | ces_Latn | ces
da | Danish | dansk | Latin | Indo-European | 3 | dan_Latn | dan
de | German | Deutsch | Latin | Indo-European | 5 | deu_Latn | deu
el | Greek | Ελληνικά | Greek | Indo-European | 3 | ell_Grek | ell
en | English | English | Latin | Indo-European | 5 | eng_Latn | eng
es | Spanish | español | Latin | Indo-European | 5 | spa_Latn | spa
et | Estonian | eesti | Latin | Uralic | 3 | est_Latn | est
eu | Basque | euskara | Latin | Basque | 4 | eus_Latn | eus
fi | Finnish | suomi | Latin | Uralic | 4 | fin_Latn | fin
fr | French | français | Latin | Indo-European | 5 | fra_Latn | fra
gu | Gujarati | ગુજરાતી | Gujarati | Indo-European | 1 | guj_Gujr | guj
he | Hebrew | עברית | Hebrew | Afro-Asiatic | 3 | heb_Hebr | heb
hi | Hindi | हिन्दी | Devanagari | Indo-European | 4 | hin_Deva | hin
ht | Haitian | kreyòl ayisyen | Latin | French creole | 2 | hat_Latn | hat
hu | Hungarian | magyar | Latin | Uralic | 4 | hun_Latn | hun
id | Indonesian | bahasa Indonesia | Latin | Austronesian | 3 | ind_Latn | ind
it | Italian | italiano | Latin | Indo-European | 4 | ita_Latn | ita
ja | Japanese | 日本語 | Japanese | Japonic | 5 | jpn_Jpan | jpn
kn | Kannada | ಕನ್ನಡ | Kannada | Dravidian | 1 | kan_Knda | kan
ko | Korean | 한국어 | Hangul | Koreanic | 4 | kor_Hang | kor
ml | Malayalam | മലയാളം | Malayalam | Dravidian | 1 | mal_Mlym | mal
mr | Marathi | मराठी | Devanagari | Indo-European | 2 | mar_Deva | mar
my | Burmese | မြန်မာ | Burmese | Sino-Tibetan | 1 | mya_Mymr | mya
nl | Dutch | Nederlands | Latin | Indo-European | 4 | nld_Latn | nld
no | Norwegian | norsk | Latin | Indo-European | 1 | nob_Latn | nor
or | Odia | ଓଡ଼ିଆ | Odia | Indo-European | 1 | ory_Orya | ori
pa | Punjabi | ਪੰਜਾਬੀ | Gurmukhi | Indo-European | 2 | pan_Guru | pan
pl | Polish | polski | Latin | Indo-European | 4 | pol_Latn | pol
pt | Portuguese | português | Latin | Indo-European | 4 | por_Latn | por
qu | Quechua | Runasimi | Latin | Quechuan | 1 | quy_Latn | que
ro | Romanian | română | Latin | Indo-European | 3 | ron_Latn | ron
ru | Russian | русский | Cyrillic | Indo-European | 4 | rus_Cyrl | rus
sv | Swedish | svenska | Latin | Indo-European | 4 | swe_Latn | swe
sw | Swahili | Kiswahili | Latin | Niger-Congo | 2 | swh_Latn | swa
ta | Tamil | தமிழ் | Tamil | Dravidian | 3 | tam_Taml | tam
te | Telugu | తెలుగు | Telugu | Dravidian | 1 | tel_Telu | tel
th | Thai | ไทย | Thai | Kra-Dai | 3 | tha_Thai | tha
tr | Turkish | Türkçe | Latin | Turkic | 4 | tur_Latn | tur
ur | Urdu | اردو | Arabic | Indo-European | 3 | urd_Arab | urd
vi | Vietnamese | Tiếng Việt | Latin | Austroasiatic | 4 | vie_Latn | vie
zh | Chinese | 中文 | Han | Sino-Tibetan | 5 | zho_Hans | zho
zh-Hans | Chinese (simplified) | 简体中文 | Han | Sino-Tibetan | 5 | zho_Hans | zho
zh-Hant | Chinese (traditional) | 繁體中文 | Han | Sino-Tibetan | 5 | zho_Hant | zho
"""


def _read(line: str) -> Language:
    code, name, endonym, script, family, joshi, flores, iso3 = (
        field.strip() for field in line.split("|")
    )
    return Language(code, name, endonym, script, family, int(joshi), flores, iso3)


LANGUAGES = {
    language.code: language for language in map(_read, _TABLE.strip().split("\n"))
}


def resource_level(code: str) -> str:
    """Return "low" (Joshi class 0-2), "mid" (3) or "high" (4-5); the split is ours."""
    return ("low", "low", "low", "mid", "high", "high")[LANGUAGES[code].joshi]


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
