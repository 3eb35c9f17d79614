import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import LANGUAGES, sample
from hexapla.text.normalize import (
    FAULTS,
    Positive,
    contains_answer,
    find_answer,
    find_fault,
    hash_shingles,
    normalize_text,
    normalize_texts,
)


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
    assert normalize_text(variant) == normalize_text("Who painted the Night Watch?")


@pytest.mark.parametrize(
    ("one", "other"),
    [("कि", "की"), ("resume", "résumé"), ("ว่า", "วา"), ("5 > 3", "5 < 3"), ("in 1642", "in 1643")],
)
def test_what_carries_meaning_makes_texts_different(one, other):
    assert normalize_text(one) != normalize_text(other)


@given(st.text())
def test_normalizing_is_idempotent_and_ignores_composition(text):
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert normalize_text(unicodedata.normalize("NFD", text)) == normalize_text(
        unicodedata.normalize("NFC", text)
    )


@given(st.lists(st.one_of(st.none(), st.text()), max_size=8))
def test_many_texts_are_normalized_as_each_is(texts):
    assert normalize_texts(texts) == [normalize_text(text or "") for text in texts]


def test_the_sample_is_normalized_as_each_text_is():
    for lang in LANGUAGES:
        texts = [row[column] for row in sample(lang) for column in ("question", "passage")]
        assert normalize_texts(texts) == [normalize_text(text) for text in texts]


@given(st.text(st.sampled_from("abc")), st.integers(1, 9))
def test_shingles_have_equal_hashes_where_they_are_equal(text, width):
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    runs = [text[at : at + width] for at in range(len(text) - width + 1)]
    hashes = hash_shingles(codes, width).tolist()
    assert len(hashes) == len(runs)
    assert len(set(zip(hashes, runs, strict=True))) == len(set(hashes)) == len(set(runs))


def test_hashes_of_shingles_are_those_that_cached_signatures_were_made_of():
    codes = np.frombuffer("hexapla".encode("utf-32-le"), "<u4")
    assert [f"{each:016x}" for each in hash_shingles(codes, 5).tolist()] == [
        "7834beaa1f991f9c", "a8de7e6149cb844d", "7613e8618b9c772d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("passage", "answer", "lang", "place"),
    [
        ("In 1945 there were 4.", "4", "en", 19),
        ("In 1945 it ended.", "4", "en", None),
        ("Bu 1945 yılında bitti.", "4", "tr", None),
        ("战争于1945年结束。", "4", "zh", None),
        ("一共有4人。", "4", "zh", 3),
        ("The category of a cat.", "cat", "en", 18),
        ("A category.", "cat", "en", None),
        ("The cat's tail", "cat", "en", 4),
        ("concat", "cat", "en", None),
        ("猫睡在沙发上", "沙发", "zh", 3),
        ("แมวนอนบนโซฟา", "โซฟา", "th", 8),
        ("แมวชื่อ Tom นอน", "Tom", "th", 8),
        ("แมวชื่อTomนอน", "Tom", "th", 7),
        ("서울에서", "서울", "ko", 0),
        ("tungstendir", "tungsten", "tr-TR", 0),
        ("στο Τόκιο", "το Τόκιο", "el", 1),
        ("naïve", "nai\u0308ve", "fr", None),
        ("cafe\u0301s", "cafe", "fr", None),
        ("aXa Xa", "Xa", "en", 4),
        ("anything", "", "en", None),
    ],
)
def test_an_answer_is_not_found_inside_a_word_or_a_number(passage, answer, lang, place):
    found = find_answer(passage, answer, lang)
    assert found == (None if place is None else (place, place + len(answer)))
    assert contains_answer(passage, answer, lang) == (place is not None)


def test_an_answer_is_found_in_any_case_of_letters_if_it_is_asked_for():
    assert find_answer("A Category, the CAT.", "cat", "en") is None
    assert find_answer("A Category, the CAT.", "cat", "en", ignore_case=True) == (16, 19)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_answer_of_the_sample_is_found(lang):
    assert all(contains_answer(row["passage"], row["answer"], lang) for row in sample(lang))


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
        ("A bat" + "x" * 40, "length"),
        ("A bat" + "!" * 40, "holds the answer"),
    ],
)
def test_what_may_not_be_a_negative_is_named(negative, wanted):
    positive = Positive(normalize_text("A bat flew by."), "A bat", (4, 40), "en")
    held = negative == "HELD out!"
    number = find_fault(negative, normalize_text(negative), positive, in_benchmark=held)
    assert (FAULTS[number - 1] if number else None) == wanted


def test_where_no_answer_may_not_stand_none_counts():
    assert (
        find_fault(
            "A bat sat", normalize_text("A bat sat"), Positive("", "", (4, 40), "en"), in_benchmark=False
        )
        == 0
    )
