"""Every text is translated once, every row gets its own translations, and nothing stays English."""

import errno
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.data.translate import quality, shards
from hexapla.data.translate.shards import CollectedPair, LanguageCounts
from hexapla.io import cache
from hexapla.io import tables as parquet
from hexapla.schema import ORIGINAL, Pair, UserError


def pair(question: str = "q", passage: str = "p", answer: str = "", *negatives: str) -> Pair:
    return Pair("x/1", "x", "en", question, passage, answer, "p1", ORIGINAL, negatives)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))


# --- rows ----------------------------------------------------------------------------------------


def make(asked: Pair, known: dict[str, tuple[str, ...]], counts: LanguageCounts) -> Pair | None:
    collected = CollectedPair(asked, {})
    found = [known.get(text, ()) for text in shards.list_texts(collected, "de")]
    return shards.make_row(collected, "de", found, "fake", counts)


@given(st.sampled_from("qx"), st.sampled_from("px"), st.sampled_from(["", "a", "b", "x"]))
def test_a_row_needs_question_and_passage_and_nothing_stays_english(question, passage, answer) -> None:
    counts = LanguageCounts()
    known = {"q": ("Q", "Q2"), "p": ("P holds A2",), "a": ("A1", "A2"), "b": ("B",)}
    row = make(pair(question, passage, answer), known, counts)
    if (question, passage) != ("q", "p"):
        assert row is None
        assert counts == LanguageCounts(missing=1)
        return
    kept = "A2" if answer == "a" else ""
    assert row == Pair("x/1", "x", "de", "Q", "P holds A2", kept, "p1", "fake")
    assert counts == LanguageCounts(translated=1, answers_lost=answer in ("b", "x"))


@given(st.lists(st.sampled_from("pnmx"), max_size=6), st.sampled_from(["", "n"]))
def test_negatives_fall_alone(negatives, answer) -> None:
    counts = LanguageCounts()
    known = {"q": ("Q",), "p": ("P N", "P2"), "n": ("N",), "m": ("M",)}
    row = make(pair("q", "p", answer, *negatives), known, counts)
    assert row.negatives == tuple(known[text][0] for text in negatives if text != "x")
    assert counts == LanguageCounts(translated=1, negatives_lost=negatives.count("x"))
    assert row.answer == answer.upper()


@pytest.mark.parametrize(
    ("candidates", "passage", "answer"),
    [
        (("der Hund", "Hund"), "Ein Hund bellt", "Hund"),
        (("das Haus",), "Das Haus steht", "Das Haus"),
        (("ein Haus", "HAUS"), "Das Haus (alt)", "Haus"),
        (("Haus (alt)",), "DAS HAUS (ALT).", "HAUS (ALT)"),
        (("İzmir",), "izmir", "izmir"),
        (("",), "Das Haus", ""),
    ],
)
def test_an_answer_is_as_it_stands_in_the_passage(candidates, passage, answer) -> None:
    row = make(pair("q", "p", "a"), {"q": ("Q",), "p": (passage,), "a": candidates}, LanguageCounts())
    assert row.answer == answer


def test_rows_that_came_in_the_language_want_nothing_and_stay() -> None:
    own = Pair("x/1", "x", "de", "Q", "P", "", "p1", ORIGINAL)
    collected, counts = CollectedPair(pair(), {"de": own}), LanguageCounts()
    assert shards.list_texts(collected, "de") == ()
    assert shards.make_row(collected, "de", [], "fake", counts) is own
    assert shards.list_texts(collected, "es") == ("q", "p")
    assert counts == LanguageCounts(original=1)


# --- the collected table -------------------------------------------------------------------------------------


def test_collected_pairs_are_an_english_row_and_what_follows_it(tmp_path: Path) -> None:
    first, second = pair(), pair()._replace(id="x/2")
    rows = [first, first._replace(lang="de"), first._replace(lang="es"), second]
    parquet.write_pairs(tmp_path / "part.parquet", rows)
    assert list(shards.read_collected(tmp_path / "part.parquet")) == [
        CollectedPair(first, {"de": rows[1], "es": rows[2]}),
        CollectedPair(second, {}),
    ]
    survey = shards.survey_table(shards.CollectedTable(tmp_path / "part.parquet"))
    assert survey.rows == {"en": 2, "de": 1, "es": 1}


@pytest.mark.parametrize(
    ("langs", "ids", "why"),
    [
        (["de", "en"], "11", "row 1: 'x/1' in 'de' does not follow its English row"),
        (["en", "de"], "12", "row 2: 'x/2' in 'de' does not follow"),
        (["en", "de", "de"], "111", "row 3: 'x/1' in 'de' occurs twice"),
    ],
)
def test_rows_out_of_place_are_one_line(langs, ids, why, tmp_path: Path) -> None:
    rows = [pair()._replace(lang=lang, id=f"x/{own}") for lang, own in zip(langs, ids, strict=True)]
    parquet.write_pairs(tmp_path / "part.parquet", rows)
    with pytest.raises(UserError, match=why):
        list(shards.read_collected(tmp_path / "part.parquet"))


def test_a_table_without_english_is_one_line(tmp_path: Path) -> None:
    parquet.write_pairs(tmp_path / "part.parquet", [])
    with pytest.raises(UserError, match="has no rows in 'en'"):
        shards.survey_table(shards.CollectedTable(tmp_path / "part.parquet"))


# --- shards --------------------------------------------------------------------------------------

ROWS = st.lists(
    st.builds(
        pair, st.sampled_from("abc"), st.sampled_from("abcdef"), st.sampled_from(["", "a", "g"]),
        st.sampled_from("hij"),
    ),
    max_size=5,
)  # fmt: skip


def write(folder: Path, tables) -> shards.CollectedTable:
    """Write the parts of a collected table."""
    for number, rows in enumerate(tables):
        parquet.write_pairs(folder / f"{number:02d}.parquet", rows)
    return shards.CollectedTable(folder)


def plan(table: shards.CollectedTable, lang: str = "de", size: int = 2) -> shards.ShardPlan:
    return shards.plan_shards(shards.survey_table(table), lang, size)


def cut(plan, table, engine: str = "engine 1") -> list[list[tuple[str, list[str]]]]:
    return [
        list(shards.cut_shards(plan, number, table.read(number), engine))
        for number in range(len(table.parts))
    ]


@given(ROWS, st.lists(ROWS, max_size=3), st.integers(1, 3), st.randoms())
def test_each_different_text_is_in_one_shard_and_found_again(
    tmp_path_factory, first, rest, size, random
) -> None:
    own = pair()._replace(lang="de")
    # Some pairs came with a row in the language, and need no text.
    tables = [
        [each for row in rows for each in ((row, own) if random.random() < 0.3 else (row,))]
        for rows in ([pair(), *first], *rest)
    ]
    table = write(tmp_path_factory.mktemp("parts"), tables)
    planned = plan(table, "de", size)
    parts = cut(planned, table)
    needed = [
        [text for collected in table.read(number) for text in shards.list_texts(collected, "de")]
        for number in range(len(tables))
    ]
    # Each in the first part that has it, in the order of the texts, as an ordered dictionary finds them.
    assert [text for part in parts for _, texts in part for text in texts] == list(
        dict.fromkeys(chain(*needed))
    )
    assert all(len(texts) == size for part in parts for _, texts in part[:-1])
    for key, texts in chain(*parts):
        shards.write_shard(key, [(text.upper(), text) if text != "c" else () for text in texts])
        assert shards.has_rows(shards.shard_file(key), len(texts))
        assert not shards.has_rows(shards.shard_file(key), len(texts) + 1)
    keys = [[key for key, _ in part] for part in parts]
    for number, texts in enumerate(needed):
        assert shards.find_translations(planned, number, keys) == [
            (text.upper(), text) if text != "c" else () for text in texts
        ]


@given(ROWS, st.lists(ROWS, min_size=1, max_size=3))
def test_a_part_behind_the_others_changes_none_of_their_shards(tmp_path_factory, first, rest) -> None:
    tables = [[pair(), *first], *rest]
    fewer = write(tmp_path_factory.mktemp("fewer"), tables[:-1])
    more = write(tmp_path_factory.mktemp("more"), tables)
    assert cut(plan(fewer), fewer) == cut(plan(more), more)[:-1]


def test_names_depend_on_all_that_translations_do(tmp_path: Path) -> None:
    table = write(tmp_path, [[pair()]])

    def name(lang="de", engine="engine 1", size=5):
        return cut(plan(table, lang, size), table, engine)[0][0][0]

    assert len({name(), name(lang="es"), name(engine="engine 2"), name(size=1)}) == 4
    assert name() == name()
    assert shards.hash_values("a", "bc") != shards.hash_values("ab", "c")


def test_the_name_of_a_shard_stays(tmp_path: Path) -> None:
    """Another name would translate everything anew; then `FORMAT` should say so."""
    table = write(tmp_path, [[pair()]])
    assert cut(plan(table), table)[0][0][0].startswith("eb897c81f5fb2f04")


def test_a_broken_file_is_missing_and_then_gone(tmp_path: Path) -> None:
    shards.write_shard("k", [("a",), ()])
    assert shards.read_shard("k") == [("a",), ()]
    place = shards.shard_file("k")
    place.write_bytes(place.read_bytes()[:-9])
    assert not shards.has_rows(place, 2)
    with pytest.raises(UserError, match="broken or gone; run `dvc repro` again"):
        shards.read_shard("k")
    assert not place.exists()


def test_texts_without_any_translation_are_kept_too() -> None:
    shards.write_shard("k", [(), ()])
    assert shards.has_rows(shards.shard_file("k"), 2)
    assert shards.read_shard("k") == [(), ()]


# --- a full disk ---------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full")
def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path, monkeypatch) -> None:
    # What is not there to be written to can't have the process killed.
    assert not shards._map_file(np.arange(9)).flags.writeable
    table = write(tmp_path, [[pair()]])
    survey = shards.survey_table(table)
    survey.own["de"] = [np.empty(0, np.int64)]
    monkeypatch.setattr(shards, "_scratch", partial(Path("/dev/full").open, "r+b"))
    monkeypatch.setattr(cache, "atomic_file", lambda path: nullcontext(Path("/dev/full")))
    for attempt in (
        lambda: shards.survey_table(table),
        lambda: shards.plan_shards(survey, "de", 1),
        lambda: shards._map_file(np.arange(9)),
        lambda: quality.write_embeddings("k", np.ones((9, 9), np.float32)),
    ):
        with pytest.raises(OSError, match="No space left") as raised:
            attempt()
        assert raised.value.errno == errno.ENOSPC
