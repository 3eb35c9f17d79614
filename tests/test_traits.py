import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.records import Pair
from hexapla.traits import FAULTS, fault, measure, normalise, together


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


def row(id="a", lang="en", question="Who?", passage="He did it."):
    return Pair(id, "s", lang, question, passage, "", "p" + id, "memory")


def test_traits_of_missing_texts_are_absent_or_zero():
    (traits,) = measure([row(question=None, passage=None, lang=None)], {}, None, ())
    assert traits.question_chars == traits.passage_chars == 0
    absent = traits._replace(question_chars=None, passage_chars=None, pair_key=None)
    assert set(absent) == {None}


def test_length_ratio_is_to_the_english_row_wherever_it_stands():
    rows = [row(lang="de", passage="x" * 30), row(passage="y" * 20), row("b", "de", passage="z" * 9)]
    assert [traits.length_ratio for traits in measure(rows, {}, None, ())] == [1.5, None, None]


LIMITS = {"chars": (4, 40), "answer_in_passage": True}


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
    own = row(passage="A bat flew by.")._replace(answer="A bat")
    assert fault(negative, own, [{"other"}, {normalise("held-out")}], **LIMITS) == wanted
    assert wanted is None or wanted in FAULTS


def test_an_answer_counts_where_answers_stand_in_their_passages():
    own = row(passage="A bat flew by.")._replace(answer="A bat")
    assert fault("A bat sat", own, [], chars=(4, 40), answer_in_passage=False) is None
    assert fault("A bat sat", own._replace(answer=""), [], **LIMITS) is None


rows_and_rejected = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["en", "de"]), st.sampled_from("xy"), st.booleans()),
    unique_by=lambda drawn: drawn[:2],
)


@given(rows_and_rejected)
def test_what_is_kept_is_aligned_and_without_repeats(drawn):
    rows = [row(key, lang, text) for key, lang, text, _ in drawn]
    keys = [f"{one.lang}{one.question}" for one in rows]
    rejected = {i for i, (*_, out) in enumerate(drawn) if out}
    related = list(together(rows, keys, rejected))
    kept = [i for i, (english, repeat) in enumerate(related) if i not in rejected and english and not repeat]
    english = {rows[i].id for i in kept if rows[i].lang == "en"}
    assert all(rows[i].id in english for i in kept)
    assert len({keys[i] for i in kept}) == len(kept)
    # Nothing goes without need: a row that was dropped here lacks its English, or its text is kept elsewhere.
    for i in set(range(len(rows))) - set(kept) - rejected:
        assert rows[i].id not in english or keys[i] in {keys[j] for j in kept}


def test_the_first_of_a_repeated_pair_stays():
    rows = [row(key) for key in "abc"]
    assert [repeat for _, repeat in together(rows, ["k", "k", "l"], set())] == [False, True, False]
    assert [repeat for _, repeat in together(rows, ["k", "k", "l"], {0})] == [False, False, False]


def test_benchmarks_are_named():
    texts = {"one": {normalise("Who?")}, "two": {normalise("he did it")}, "three": {"other"}}
    names = [
        traits.in_benchmark
        for traits in measure([row(), row(question="What?"), row(passage="No.")], texts, None, ())
    ]
    assert names == ["one, two", "two", "one"]
