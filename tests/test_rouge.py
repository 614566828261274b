"""ROUGE-L: words as XL-Sum's own scorer cuts them, named, and without its packages."""

from importlib.util import find_spec
from itertools import pairwise

import pytest

from maple_utils import rouge
from maple_utils.languages import LANGUAGES
from maple_utils.rouge import cutter, is_comparable, rouge_l, rouge_words
from maple_utils.tasks import TASKS, available, load_task

REAL_TEXT = {  # a sentence, and one that shares about half of it
    "ar": ("ذهب الولد إلى المدرسة صباحا", "ذهب الولد إلى السوق مساء"),
    "hi": ("लड़का सुबह स्कूल गया था", "लड़का शाम को स्कूल गया"),
    "th": ("เด็กชายไปโรงเรียนตอนเช้า", "เด็กชายไปตลาดตอนเย็น"),
    "zh": ("男孩早上去了学校", "男孩晚上去了市场"),
    "ja": ("男の子は朝、学校に行った", "男の子は夜、市場に行った"),
    "my": ("ကောင်လေးကျောင်းသွားတယ်", "ကောင်လေးဈေးသွားတယ်"),
    "ta": ("சிறுவன் காலையில் பள்ளிக்குச் சென்றான்", "சிறுவன் மாலையில் சந்தைக்குச் சென்றான்"),
    "ru": ("мальчик пошёл утром в школу", "мальчик пошёл вечером на рынок"),
}
# What XL-Sum's scorer makes of a text, found once with the parts that it is made of:
# pyonmttok in aggressive mode, NLTK's Snowball, TurkishStemmer, jieba, fugashi, newmm.
THEIRS = {
    "en": (
        "The 50th games' winners weren’t told: US$5m — co\u00adoperation!",
        "the 50 th game winner weren t told us 5 m cooper",
    ),
    "ru": (
        "Победители 50-х игр получили 5 млн рублей.",
        "победител 50 х игр получ 5 млн рубл",
    ),
    "ar": ("فاز اللاعبون بالمباريات في 2019م.", "فاز لاعب مبار في 2019 م"),
    "hi": (
        "खिलाड़ियों ने 2019 में लड़कियों को किताबें दीं।",
        "खिलाड़ ने 2019 में लड़क को किताब दीं",
    ),
    "tr": ("Oyuncular evlerinden İstanbul'a gittiler.", "oyunç ev i̇stanbul a git"),
    "sw": (
        "Wachezaji 50 walishinda, asema rais wa COVID19.",
        "wachezaji 50 walishinda asema rais wa covid 19",
    ),
    "ko": ("선수들은 2019년 大會에서 이겼다.", "선수들은 2019 년 大 會 에서 이겼다"),
    "te": ("ఆటగాళ్ళు గెలి\u200cచారు: 2019.", "ఆటగాళ్ళు గెలిచారు 2019"),
    "zh": (
        "运动员在2019年赢得了比赛，他们很高兴。",
        "运动员 在 2019 年 赢得 了 比赛 _ 他们 很 高兴",
    ),
    "th": ("นักกีฬาชนะการแข่งขัน ในปี 2019", "นักกีฬา ชนะ การแข่งขัน _ ใน ปี _ 2019"),
    "ja": (
        "選手たちは２０１９年の試合に勝った。とても喜んだ。",
        "選手 たち は ２０１９ 年 の 試合 に 勝っ た とても 喜ん だ",
    ),
}


def needs_its_packages(language: str) -> None:
    for package in rouge.CUTTERS.get(language, ("", ()))[1]:
        pytest.importorskip(package)


@pytest.fixture
def bare(monkeypatch):
    """Let the optional packages be absent."""
    optional = {name for _, packages in rouge.CUTTERS.values() for name in packages}
    cutter.cache_clear()
    monkeypatch.setattr(
        rouge, "find_spec", lambda name: None if name in optional else find_spec(name)
    )
    yield
    cutter.cache_clear()


@pytest.mark.parametrize("language", THEIRS)
def test_words_are_those_of_xlsum(language):
    needs_its_packages(language)
    text, expected = THEIRS[language]
    words = [word.replace(" ", "_") for word in rouge_words(text, language)]
    assert words == expected.split(" ")


@pytest.mark.parametrize("language", REAL_TEXT)
def test_every_script_is_seen(language):
    """The fault to avoid: a tokeniser of [a-z0-9] scores these 0."""
    needs_its_packages(language)
    one, two = REAL_TEXT[language]
    assert rouge_l(one, [one], language) == 1
    assert 0.3 < rouge_l(one, [two], language) < 0.95


@pytest.mark.parametrize("language", REAL_TEXT)
def test_every_script_is_seen_without_the_packages(language, bare):
    one, two = REAL_TEXT[language]
    assert rouge_l(one, [one], language) == 1
    assert 0.3 < rouge_l(one, [two], language) < 0.95
    named = {"zh": "letters", "ja": "letters", "th": "letters", "my": "letters"}
    own = {"hi": "words+suffixes"}
    assert cutter(language) == (named | own).get(language, "words")


def test_what_is_not_cut_as_in_xlsum_is_not_comparable(bare):
    others = ("zh", "zh-Hant", "ja", "th", "en", "tr", "bn")
    assert not any(is_comparable(code, cutter(code)) for code in others)
    same = ("hi", "id", "ko", "sw", "te", "vi")
    assert all(is_comparable(code, cutter(code)) for code in same)


def test_with_the_packages_all_of_xlsum_but_bengali_is_comparable():
    for code in rouge.CUTTERS:
        needs_its_packages(code)
    languages = TASKS["xlsum"].languages
    assert [code for code in languages if not is_comparable(code, cutter(code))] == [
        "bn"
    ]
    assert [cutter(code) for code in ("zh-Hant", "ja", "th")] == [
        *("jieba", "mecab", "newmm")
    ]
    assert cutter("fr") == "words+snowball"
    assert cutter("vi") == "words"


def test_nltk_stems_every_language_that_is_said_to_be_stemmed():
    snowball = pytest.importorskip("nltk.stem.snowball").SnowballStemmer
    names = {LANGUAGES[code].name.lower() for code in rouge.SNOWBALL}
    assert names == set(snowball.languages) - {"porter"}


def test_words_of_a_language_not_its_letters_are_compared():
    """Finding 4: letter by letter, unrelated Chinese sentences look alike."""
    needs_its_packages("zh")
    one, two = "大学生活很精彩", "生大病的学者活得很长"
    assert rouge_l(one, [two], "zh") < 0.2


def test_format_characters_do_not_split_words():
    joined, plain = "می\u200cخواهم", "میخواهم"
    assert rouge_l(joined, [plain], "ur") == 1
    assert rouge_l("co\u00adoperation", ["cooperation"], "sw") == 1


def test_rouge_l_by_hand():
    assert rouge_l("a b c d", ["a x c y"], "sw") == pytest.approx(0.5)
    assert rouge_l("", ["a"], "en") == 0
    assert rouge_l("b", ["a", "b"], "en") == 1
    assert rouge_l("中国 2024", ["中国 2024"], "zh") == 1
    assert rouge_l("ಪುಸ್ತಕ", ["ಪುಸ್ತಕಗಳು"], "kn") == 0  # marks belong to their word


def test_rouge_l_agrees_with_rouge_score(shared_hub):
    """Theirs is the longest common subsequence, ours the words, on real passages."""
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer
    for language in ("en", "hi", "vi", "zh"):
        if language not in available(TASKS["xquad"], shared_hub):
            pytest.skip(f"{shared_hub} has no {language} xquad")

        class Cutter:
            def tokenize(self, text, language=language):
                return rouge_words(text, language)

        theirs = scorer(["rougeL"], tokenizer=Cutter())
        data = load_task("xquad", language, hub_root=shared_hub, shots=0, limit=10)
        for one, two in pairwise(example.context[:300] for example in data.test):
            value = theirs.score(two, one)["rougeL"].fmeasure
            assert rouge_l(one, [two], language) == pytest.approx(value, abs=1e-12)
