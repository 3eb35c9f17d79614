import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import LANGUAGES, sample
from hexapla.text.languages import script_share
from hexapla.text.normalize import FAULTS, Own, fault, normalise, normalised, script_shares


@pytest.mark.parametrize(
    "variant",
    [
        "who painted the night watch",
        "  Who   painted\tthe\nNight Watch ?!",
        "WHO PAINTED THE “NIGHT WATCH”?",
        "Ｗｈｏ ｐａｉｎｔｅｄ ｔｈｅ Ｎｉｇｈｔ Ｗａｔｃｈ？",
        "Who pain\u200bted the Night\u00a0Watch…",
        "Who painted the ‘Night-Watch’",
    ],
)
def test_case_width_space_and_punctuation_do_not_make_texts_different(variant):
    assert normalise(variant) == normalise("Who painted the Night Watch?")


@pytest.mark.parametrize(
    ("one", "other"),
    [("कि", "की"), ("resume", "résumé"), ("ว่า", "วา"), ("5 > 3", "5 < 3"), ("in 1642", "in 1643")],
)
def test_what_carries_meaning_makes_texts_different(one, other):
    assert normalise(one) != normalise(other)


@given(st.text())
def test_normalise_is_idempotent_and_ignores_composition(text):
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


@given(st.lists(st.one_of(st.none(), st.text()), max_size=8))
def test_many_texts_are_normalised_as_each_is(texts):
    assert normalised(texts) == [normalise(text or "") for text in texts]


def test_the_sample_is_normalised_as_each_text_is():
    for lang in LANGUAGES:
        texts = [row[column] for row in sample(lang) for column in ("question", "passage")]
        assert normalised(texts) == [normalise(text) for text in texts]


mixed = st.text(st.sampled_from("aÀßяЖ犬か한กิकि๓5 \n.ﬁ①Ａ\u0301\u200b"), max_size=20)


@given(st.lists(mixed, max_size=8), st.sampled_from(["en", "zh", "ja", "sr", "th", "hi", "de-AT"]))
def test_scripts_of_many_texts_are_shared_as_each_is(texts, lang):
    wanted = [script_share(text, lang) if text.strip() else None for text in texts]
    found = [None if np.isnan(share) else share for share in script_shares(texts, lang).tolist()]
    assert found == wanted


def test_nothing_is_said_of_the_script_of_a_language_without_one():
    assert np.isnan(script_shares(["abc", None], "tlh")).all()


@pytest.mark.parametrize(
    ("negative", "wanted"),
    [
        ("The dog sat on the mat.", None),
        ("the cats", None),
        ("A bat", "holds the answer"),
        ("  \u200b\n", "length"),
        (" \n", "empty"),
        ("“A bat, flew by” ", "the passage itself"),
        ("HELD out!", "in a benchmark"),
        ("Nay", "length"),
        ("x" * 40, None),
        ("x" * 41, "length"),
        ("A bat" + "x" * 40, "holds the answer"),
    ],
)
def test_what_may_not_be_a_negative_is_named(negative, wanted):
    own = Own(normalise("A bat flew by."), "A bat", (4, 40))
    held = negative == "HELD out!"
    number = fault(negative, normalise(negative), own, in_benchmark=held)
    assert (FAULTS[number - 1] if number else None) == wanted


def test_where_no_answer_may_not_stand_none_counts():
    assert fault("A bat sat", normalise("A bat sat"), Own("", "", (4, 40)), in_benchmark=False) == 0
