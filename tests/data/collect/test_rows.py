"""Rows: each is a pair, or several, or one count of why not; whatever does not fit is named."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.config import FilesSource, HubSource
from hexapla.data.collect.rows import SourceCounts, hash_content, make_pairs
from hexapla.schema import Pair, UserError

GOOD = {"question": "Who sleeps?", "passage": "The cat sleeps.", "answer": "The cat"}
# What is no control character, no surrogate, and not invisible is left as it is.
letters = st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"])
texts = st.text(letters, min_size=1).filter(str.strip)


def pairs(rows: list[dict], counts: SourceCounts | None = None, **settings: object) -> list[Pair]:
    """Make pairs of rows as they are, without a file."""
    given = {"name": "x", **settings}
    source = HubSource(**given) if "dataset" in given else FilesSource(path="-", **given)
    named = [(f"a.jsonl:{number}", row) for number, row in enumerate(rows, 1)]
    return list(make_pairs(named, source, counts or SourceCounts()))


# --- good rows ---------------------------------------------------------------------------------


def test_negatives_change_no_id_and_are_none_where_none_are_given() -> None:
    bare, hard = pairs([GOOD]) + pairs([{**GOOD, "negatives": ["The dog runs."]}])
    assert [bare.negatives, hard.negatives] == [(), ("The dog runs.",)]
    assert bare == hard._replace(negatives=())
    with pytest.raises(UserError, match="a.jsonl:1: no column 'hard'.*columns: {negatives: ...}"):
        pairs([GOOD], columns={"negatives": "hard"})


def test_own_columns_and_ids() -> None:
    columns = {"question": "q", "passage": "text", "id": "key", "lang": "language"}
    row = {"q": " Who? \n", "text": "The cat.", "key": 7, "language": "en"}
    (pair,) = pairs([row], columns=columns)
    assert (pair.id, pair.question, pair.answer) == ("x/7", "Who?", "")


def test_columns_may_lie_deep() -> None:
    row = {"qa": {"q": "Who?"}, "hits": [{"text": "The cat."}, {"text": "The dog."}], "a.b": "cat"}
    columns = {"question": "qa.q", "passage": "hits.0.text", "negatives": "hits.text", "answer": "a.b"}
    (pair,) = pairs([row], columns=columns)
    assert (pair.question, pair.passage, pair.answer) == ("Who?", "The cat.", "cat")
    assert pair.negatives == ("The cat.", "The dog.")
    with pytest.raises(UserError, match="a.jsonl:1: no column 'qa.r' .it has qa, hits, a.b"):
        pairs([row], columns={**columns, "question": "qa.r"})
    with pytest.raises(UserError, match="a.jsonl:1: column 'hits.2.text' is empty"):
        pairs([row], columns={**columns, "passage": "hits.2.text"})


def test_their_answer_that_is_our_passage_is_no_answer() -> None:
    (pair,) = pairs(
        [{"query": "Who?", "answer": "The cat."}], columns={"question": "query", "passage": "answer"}
    )
    assert (pair.passage, pair.answer) == ("The cat.", "")


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.randoms())
def test_content_ids_do_not_depend_on_the_order(rows, random) -> None:
    given = [{"question": question, "passage": passage} for question, passage in rows]
    first, second = ({*pairs(some)} for some in (given, random.sample(given, len(given))))
    assert {pair.id for pair in first} == {pair.id for pair in second}
    assert first == second


@given(texts, texts)
def test_equal_passages_share_their_id_and_only_they(one, other) -> None:
    rows = [{"question": "Who?", "passage": text} for text in (one, f"  {one}\n", other)]
    first, spaced, last = (pair.passage_id for pair in pairs(rows))
    assert first == spaced
    assert (first == last) == (hash_content("", one) == hash_content("", other))


# --- what is left out, and counted ---------------------------------------------------------------


def test_where_takes_the_rows_that_hold_a_value() -> None:
    rows = [{**GOOD, "label": label} for label in (1, 0, "1", None)]
    counts = SourceCounts()
    assert len(pairs(rows, counts, where={"label": "1"})) == 2
    assert (counts.read, counts.other_rows) == (4, 2)
    with pytest.raises(
        UserError, match="a.jsonl:1: no column 'mark', which `where` asks for .it has question"
    ):
        pairs(rows, where={"mark": "1"})


def test_lengths_are_asked_for() -> None:
    rows = [{"question": "q" * n, "passage": "p" * (10 * n)} for n in range(1, 11)]
    counts = SourceCounts()
    bounds = {
        "min_question_chars": 2,
        "max_question_chars": 8,
        "min_passage_chars": 30,
        "max_passage_chars": 70,
    }
    assert [len(pair.question) for pair in pairs(rows, counts, **bounds)] == [3, 4, 5, 6, 7]
    assert counts.short_or_long == 5


@given(st.sets(st.integers(0, 10_000), max_size=100), st.floats(0.1, 0.9), st.randoms())
def test_a_sample_is_the_same_rows_in_any_order_and_grows_with_its_share(numbers, share, random) -> None:
    rows = [{"question": f"{n}?", "passage": f"The cat has {n} lives."} for n in sorted(numbers)]
    counts = SourceCounts()
    taken = {*pairs(rows, counts, sample=share)}
    assert taken == {*pairs(random.sample(rows, len(rows)), sample=share)}
    assert taken <= {*pairs(rows, sample=min(1, share + 0.1))}
    assert counts.not_sampled == len(rows) - len(taken)
    assert len(pairs(rows)) == len(rows)


def test_a_sample_has_its_share() -> None:
    rows = [{"question": f"{n}?", "passage": f"The cat has {n} lives."} for n in range(4000)]
    assert [round(len(pairs(rows, sample=share)) / 4000, 1) for share in (0.1, 0.4, 0.9)] == [0.1, 0.4, 0.9]


def test_a_limit_counts_the_pairs_that_were_taken_and_reads_no_further() -> None:
    def endless():
        for number in range(100):
            yield (
                f"row {number}",
                {"question": f"{number}?", "passage": "The cat.", "answers": ["cat"] * (number % 2)},
            )
        raise AssertionError

    counts = SourceCounts()
    source = FilesSource(path="-", limit=5)
    found = list(make_pairs(endless(), source, counts))
    assert [pair.question for pair in found] == ["1?", "3?", "5?", "7?", "9?"]
    assert (counts.read, counts.skipped) == (10, 5)


def test_long_passages_are_cut_around_the_answer() -> None:
    passage = "A cat sleeps. A dog runs away. It rains all day. The cat wakes up at noon."
    rows = [{"question": "Who?", "passage": passage, "answer": answer} for answer in ("dog", "noon")]
    counts = SourceCounts()
    found = pairs([*rows, GOOD], counts, cut_passages=50, max_passage_chars=50)
    assert [pair.passage for pair in found] == [
        "A cat sleeps. A dog runs away. It rains all day.",
        "It rains all day. The cat wakes up at noon.",
        GOOD["passage"],
    ]
    assert len({pair.passage_id for pair in found}) == 3
    assert len({pair.id for pair in found}) == 3
    assert counts.cut == 2


def test_invisible_marks_go_and_joiners_stay() -> None:
    joined = "\u0645\u06cc\u200c\u0631\u0648\u0645 \u0915\u094d\u200d\u0937"
    marked = {
        "question": "\ufeffWho\u200b?",
        "passage": f"The c\u00adat \u202asleeps\u202c. {joined}",
        "answer": "c\u200eat",
        "negatives": ["The\u2067 dog."],
    }
    counts = SourceCounts()
    pair, _ = pairs([marked, GOOD], counts)
    assert (pair.question, pair.answer, pair.negatives) == ("Who?", "cat", ("The dog.",))
    assert pair.passage == f"The cat sleeps. {joined}"
    assert counts.cleaned == 1


def test_what_is_no_text_in_a_dataset_of_the_hub_is_counted() -> None:
    bad = ["", None, "a\0b", "a\x1bb"]
    rows = [GOOD, *({**GOOD, "passage": text} for text in bad), {**GOOD, "question": "Why?"}]
    counts = SourceCounts()
    source = {"dataset": "a/b", "revision": "c"}
    assert [pair.question for pair in pairs(rows, counts, **source)] == [GOOD["question"], "Why?"]
    assert (counts.read, counts.unusable) == (6, 4)
    with pytest.raises(UserError, match="a.jsonl:1: no column 'passage'"):
        pairs([{"question": "Who?"}], **source)


def test_a_bad_translation_in_a_dataset_of_the_hub_goes_alone() -> None:
    long = "A cat sleeps all day. A dog runs. It rains outside."
    texts = {"en": "Wh\u200bo?", "de": "W\0er?", "fr": "Qui\u200b ?"}
    row = {"id": "a", "texts": {lang: {"q": text, "p": long} for lang, text in texts.items()}}
    bad = {"id": "b", "texts": {**row["texts"], "en": {"q": "W\0ho?", "p": long}}}
    settings = {"columns": WIDE, "languages": ("en", "de", "fr"), "cut_passages": 40}
    counts = SourceCounts()
    found = pairs([row, bad], counts, dataset="a/b", revision="c", **settings)
    assert [(pair.id, pair.lang) for pair in found] == [("x/a", "en"), ("x/a", "fr")]
    assert (counts.read, counts.unusable, counts.translations) == (2, 2, 1)
    assert (counts.cut, counts.cleaned) == (2, 2)
    refused(["a.jsonl:1", "'texts.de.q'", "U+0000"], [row], **settings)


# --- parallel data -------------------------------------------------------------------------------


def in_two_forms(texts: dict[str, dict[str, str]]) -> tuple[list[dict], list[dict]]:
    """The same pairs, {id: {lang: text}}, a row a language and with columns of all languages."""
    long = [
        {"id": own, "lang": lang, "question": f"{text}?", "passage": f"{text}."}
        for own, row in texts.items()
        for lang, text in row.items()
    ]
    wide = [
        {"id": own, "texts": {lang: {"q": f"{text}?", "p": f"{text}."} for lang, text in row.items()}}
        for own, row in texts.items()
    ]
    return long, wide


WIDE = {"question": "texts.{lang}.q", "passage": "texts.{lang}.p"}
langs = st.sampled_from(["en", "de", "zh", "el"])


@given(st.dictionaries(st.sampled_from("abcdef"), st.dictionaries(langs, texts, max_size=4)))
def test_both_forms_of_parallel_data_give_the_same_pairs(made) -> None:
    long, wide = in_two_forms(made)
    languages = ("en", "de", "zh")
    tallies = SourceCounts(), SourceCounts()
    first = pairs(long, tallies[0], languages=languages)
    second = pairs(wide, tallies[1], languages=languages, columns=WIDE)
    english = {pair.id for pair in first if pair.lang == "en"}
    assert sorted(pair for pair in first if pair.id in english) == sorted(second)
    assert {pair.lang for pair in second} <= set(languages)
    assert all(bool(pair.passage_id) == (pair.lang == "en") for pair in [*first, *second])
    # Each row is one pair, or one count.
    assert tallies[0].read == len(long) == len(first) + tallies[0].other_language
    assert tallies[0].translations == len(first) - len(english)
    assert tallies[1].read == len(wide) == len(english) + tallies[1].without_english
    assert tallies[1].translations == len(second) - len(english)
    # Of each row the English pair comes first.
    assert [pair.id for pair in second if pair.lang == "en"] == list(
        dict.fromkeys(pair.id for pair in second)
    )


def test_all_languages_of_a_pair_are_sampled_alike() -> None:
    made = {f"{n}": {"de": f"Katze {n}", "en": f"cat {n}"} for n in range(200)}
    for form, columns in zip(in_two_forms(made), ({}, WIDE), strict=True):
        found = pairs(form, sample=0.3, columns=columns, languages=("en", "de"))
        by_lang = [{pair.id for pair in found if pair.lang == lang} for lang in ("en", "de")]
        assert by_lang[0] == by_lang[1]
        assert 30 < len(by_lang[0]) < 90


def test_after_the_limit_other_languages_may_still_come() -> None:
    long, wide = in_two_forms({f"{n}": {"en": f"cat {n}", "de": f"Katze {n}"} for n in range(4)})
    long.sort(key=lambda row: row["lang"], reverse=True)
    counts = SourceCounts()
    found = pairs(long, counts, limit=2)
    assert [pair.id for pair in found if pair.lang == "en"] == ["x/0", "x/1"]
    assert len([pair for pair in found if pair.lang == "de"]) == 4
    assert (counts.read, counts.over_limit, counts.translations) == (8, 2, 4)
    counts = SourceCounts()
    assert len(pairs(wide, counts, limit=2, columns=WIDE, languages=("en", "de"))) == 4
    assert counts.read == 2


def test_english_has_several_codes() -> None:
    rows = [{**GOOD, "lang": lang} for lang in ("en", "EN", "en-GB", "en_US", "eng")]
    assert {pair.lang for pair in pairs(rows)} == {"en"}
    (other,) = pairs([{**GOOD, "id": "a", "lang": "enm"}])
    assert other.lang == "enm"


def test_a_language_is_one_however_its_code_is_written() -> None:
    rows = [
        {**GOOD, "id": f"{n}", "lang": lang}
        for n, lang in enumerate(("DE", "de", "deu", "zh_hant", "EN-us", "fr"))
    ]
    found = pairs(rows, languages=("eng", "ger", "zh-Hant"))
    assert [pair.lang for pair in found] == ["de", "de", "de", "zh-Hant", "en"]
    # Columns are named as `languages` has them.
    row = {f"{name}_{lang}": f"{name} {lang}" for name in "qp" for lang in ("eng", "deu")}
    columns = {"question": "q_{lang}", "passage": "p_{lang}"}
    english, german = pairs([row], columns=columns, languages=("deu", "eng"))
    assert (english.lang, english.passage) == ("en", "p eng")
    assert (german.lang, german.passage) == ("de", "p deu")
    refused(["source 'x'", "'deu' and 'DE' are one"], [row], columns=columns, languages=("deu", "DE"))


def test_only_english_rows_are_asked_for_their_lengths() -> None:
    long, wide = in_two_forms({"a": {"en": "The cat sleeps", "zh": "猫睡了"}})
    bounds = {"min_passage_chars": 10, "languages": ("en", "zh")}
    assert len(pairs(long, **bounds)) == len(pairs(wide, columns=WIDE, **bounds)) == 2


# --- mistakes --------------------------------------------------------------------------------------


MISTAKES = {
    "empty question": ([{**GOOD, "question": " "}], {}, ["a.jsonl:1", "'question' is empty"]),
    "null passage": ([GOOD, {**GOOD, "passage": None}], {}, ["a.jsonl:2", "'passage' is empty"]),
    "nothing to see": ([{**GOOD, "passage": "\u200b"}], {}, ["a.jsonl:1", "'passage' is empty"]),
    "no column": (
        [{"question": "Who?", "context": "x"}],
        {},
        [":1", "'passage'", "question, context", "columns"],
    ),
    "mapped column": ([GOOD], {"answer": "reply"}, [":1", "'reply'", "columns: {answer: ...}"]),
    "no text": ([{**GOOD, "passage": 3}], {}, [":1", "'passage' holds int"]),
    "no text as id": ([{**GOOD, "id": True}], {}, [":1", "'id' holds bool"]),
    "no text as answer": ([{**GOOD, "answer": 3}], {}, [":1", "'answer' holds int"]),
    "no text as negatives": (
        [GOOD, {**GOOD, "negatives": {"text": ["x"]}}],
        {},
        [":2", "'negatives' holds dict", "wants a list of texts"],
    ),
    "no text among negatives": (
        [{**GOOD, "negatives": ["x", 3]}],
        {},
        ["a.jsonl:1", "'negatives[1]' holds int, wants text"],
    ),
    "half a surrogate": ([{**GOOD, "passage": "\ud800"}], {}, [":1", "'passage'", "surrogate"]),
    "half a surrogate in an answer": ([{**GOOD, "answer": "\udc00"}], {}, ["'answer'", "surrogate"]),
    "NUL": ([GOOD, {**GOOD, "question": "Who\0?"}], {}, [":2", "'question'", "control character U+0000"]),
    "escape": ([{**GOOD, "answer": "\x1b[1m"}], {}, [":1", "'answer'", "control character U+001B"]),
    "another language, no id": ([GOOD, {**GOOD, "lang": "de"}], {}, [":2", "'de'", "id of its English row"]),
    "no language": ([{**GOOD, "id": "i", "l": "jp"}], {"lang": "l"}, [":1", "'jp' is no code of ISO 639"]),
    "an empty language": ([{**GOOD, "id": "i", "lang": ""}], {}, [":1", "'' is no code of ISO 639"]),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_bad_row_is_one_line(case: str) -> None:
    rows, columns, wanted = MISTAKES[case]
    refused(wanted, rows, columns=columns)


def refused(wanted: list[str], rows: list[dict], **settings: object) -> None:
    with pytest.raises(UserError) as caught:
        pairs(rows, **settings)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in wanted), caught.value


def test_languages_that_are_none_and_columns_without_languages_are_refused() -> None:
    refused(["source 'x'", "'jp' is no code of ISO 639"], [GOOD], languages=("en", "jp"))
    refused(["source 'x'", "languages: [en, ...]"], [GOOD], columns={"question": "q_{lang}"})


def test_the_same_rows_give_the_pairs_that_cached_shards_hold() -> None:
    """If this fails because rows give other pairs now, raise `rows.FORMAT`."""
    rows = [
        {**GOOD, "negatives": ["The dog\u200b runs."]},
        {"question": "Wo\u0308 schläft die Katze?", "passage": "A cat sleeps. It dreams. " * 4, "id": "b"},
        {**GOOD, "question": "Who  sleeps?", "answers": {"text": []}, "answer": ["cat", "The cat"]},
    ]
    made = pairs(rows, cut_passages=40)
    digest = hashlib.sha256(repr([tuple(pair) for pair in made]).encode()).hexdigest()[:16]
    assert digest == "f5315d19b9c51b35"
