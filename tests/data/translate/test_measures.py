"""Each measure says what it is meant to say, in every script, and its quantiles are NumPy's."""

import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import LANGUAGES, sample
from hexapla.data.translate import measures
from hexapla.data.translate.measures import MeasureSpread, copy_share, measure_row, numbers_kept
from hexapla.schema import Pair, Quality
from hexapla.text.languages import Identifier

IDENTIFIER = Identifier(["de"])
WORDS = st.lists(st.text("abcdefgö", min_size=1, max_size=6), min_size=1, max_size=8)


def row(question: str, passage: str, answer: str = "", lang: str = "de") -> Pair:
    return Pair("x/1", "x", lang, question, passage, answer, "p1", "fake")


# --- copies --------------------------------------------------------------------------------------


@given(WORDS, WORDS)
def test_copied_letters_are_those_of_common_words(own, english) -> None:
    if own == english:
        return
    common = [word for word in own if len(word) > 1 and word in english]
    share = copy_share(" ".join(own), ", ".join(english).upper())
    if "".join(own) == "".join(english):
        assert share == 1.0
    else:
        assert share == sum(map(len, common)) / sum(map(len, own))


@given(st.text(min_size=1))
def test_a_copy_is_one_whatever_its_case_and_composition(text) -> None:
    letters = any(char.isalpha() for char in unicodedata.normalize("NFKC", text).casefold())
    for copy in (text, unicodedata.normalize("NFD", text), f" {text}.", text.casefold()):
        assert copy_share(copy, text) == (1.0 if letters else None)


def test_words_in_text_without_spaces_are_found() -> None:
    assert copy_share("他在NASA工作", "He works at NASA") == pytest.approx(4 / 8)
    assert copy_share("เขาทำงานที่NASAทุกวัน", "He works at NASA") > 0.1
    assert copy_share("Он работает", "He works") == 0.0
    assert copy_share("1914, 1918!", "1914, 1918!") is None


# --- numbers -------------------------------------------------------------------------------------

ZEROS = "0\u0660\u06f0\u0966\u0e50\uff10"
"""The noughts of Latin, Arabic, Persian, Devanagari, Thai and full-width digits."""
SEPARATORS = (",", ".", "'", "\u2019", "\u00a0", "\u202f", " ", "\u066c", "")


@given(
    st.integers(1000, 10**9).filter(lambda n: len(str(n).strip("0")) >= 3),
    st.sampled_from(SEPARATORS),
    st.sampled_from(ZEROS),
)
def test_a_number_is_the_same_in_all_digits_and_with_all_separators(number, separator, zero) -> None:
    written = f"{number:,}".replace(",", separator)
    written = "".join(chr(ord(zero) + int(char)) if char.isdecimal() else char for char in written)
    for english in (f"It has {number:,} members", f"It has {number} members."):
        assert numbers_kept(f"Es hat {written} Teile", english) == 1.0
        assert numbers_kept("Es hat Teile", english) == 0.0
        assert numbers_kept(f"Es hat {number + 1} Teile und 7", english) == 0.0


@pytest.mark.parametrize(
    ("text", "english", "share"),
    [
        ("586万人", "5.86 million people", 1.0),
        ("از سال ۱۹۱۴", "since 1914", 1.0),
        ("1914 und 1918", "1914 to 1919", 0.5),
        ("im 19. Jahrhundert", "in the 19th century", None),
        ("dreizehn Leute auf dem K2", "13 people on K2 in the 1930s", None),
        ("winters 1930–1931", "winter of 1930–31", 1.0),
        ("am 12.3.1914", "on 3/12/1914", 1.0),
    ],
)
def test_numbers_in_words_do_not_count(text, english, share) -> None:
    assert numbers_kept(text, english) == share


def test_no_row_of_the_sample_has_lost_a_number_or_is_a_copy() -> None:
    english = {each["id"]: each for each in sample("en")}
    counted = Counter()
    for lang in LANGUAGES:
        for own in sample(lang) if lang != "en" else ():
            original = english[own["id"]]
            given, text = (f"{each['question']}\n{each['passage']}" for each in (original, own))
            counted[numbers_kept(text, given)] += 1
            assert copy_share(own["question"], original["question"]) < 0.5
            assert copy_share(own["passage"], original["passage"]) < 0.5
    assert set(counted) == {1.0, None}
    assert counted[1.0] > 1000


# --- rows ----------------------------------------------------------------------------------------

ENGLISH = row("When did the war between both kingdoms end?", "It ended in the year 1648.", "1648", "en")


def test_a_row_is_measured_against_its_english_row() -> None:
    own = row("Wann endete der Krieg zwischen beiden Königreichen?", "Er endete im Jahr 1648.", "1648")
    found = measure_row(own, ENGLISH, IDENTIFIER)
    assert found == Quality(23 / 26, "de", "de", found.copy_share, 1.0, True, None)
    assert 0 <= found.copy_share < 0.1
    lost = measure_row(own._replace(passage=ENGLISH.passage, answer=""), ENGLISH, IDENTIFIER)
    assert lost == Quality(1.0, "de", "en", 1.0, 1.0, False, None)
    no_answer = measure_row(own, ENGLISH._replace(answer=""), IDENTIFIER)
    assert no_answer.answer_kept is None


def test_english_rows_have_only_their_language() -> None:
    assert measure_row(ENGLISH, None, IDENTIFIER) == Quality()  # which this identifier was not asked to know
    assert measure_row(ENGLISH, None, Identifier(["en"])) == Quality(
        question_language="en", passage_language="en"
    )


def test_empty_texts_are_measured_too() -> None:
    assert measure_row(row("", ""), row("", "", "", "en"), IDENTIFIER) == Quality()


# --- spreads -------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1, 4).map(lambda x: round(x, 3)), min_size=1, max_size=40))
def test_quantiles_are_numpys(values) -> None:
    spread = MeasureSpread()
    for value in values:
        spread.add("de", [Quality(cosine=value)])
    summary = spread.summarize()["de"]
    assert list(summary) == ["cosine"]
    assert summary["cosine"]["counted"] == len(values)
    wanted = np.quantile(values, measures.QUANTILES, method="inverted_cdf")
    assert summary["cosine"]["quantiles"] == pytest.approx(list(wanted))


def test_shares_are_of_the_rows_that_can_be_judged() -> None:
    spread = MeasureSpread()
    rows = [Quality(None, "de", "en", None, None, True), Quality(None, "de", None, None, None, False)]
    spread.add("de", [*rows, Quality(answer_kept=False)])
    assert spread.summarize() == {
        "de": {
            "question_language": {"counted": 2, "share": 1.0},
            "passage_language": {"counted": 1, "share": 0.0},
            "answer_kept": {"counted": 3, "share": 0.3333},
        }
    }
