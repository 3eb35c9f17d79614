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
    assert shards.count_rows(tmp_path / "part.parquet") == {"en": 2, "de": 1, "es": 1}


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
    parquet.write_pairs(tmp_path / "part.parquet", [pair()._replace(lang="de")])
    with pytest.raises(UserError, match="has no rows in 'en'"):
        shards.count_rows(tmp_path / "part.parquet")


# --- shards --------------------------------------------------------------------------------------

ROWS = st.lists(
    st.builds(
        pair, st.sampled_from("abc"), st.sampled_from("abcdef"), st.sampled_from(["", "a", "g"]),
        st.sampled_from("hij"),
    ),
    max_size=5,
)  # fmt: skip


def written(folder: Path, tables) -> list[Path]:
    parts = [folder / f"{number:02d}.parquet" for number in range(len(tables))]
    for part, rows in zip(parts, tables, strict=True):
        parquet.write_pairs(part, rows)
    return parts


def shards_of(plan) -> list[list[tuple[str, list[str]]]]:
    return [list(shards.cut_shards(plan, number, "engine 1")) for number in range(len(plan.parts))]


@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(1, 3))
def test_each_different_text_is_in_one_shard_and_found_again(tmp_path_factory, tables, size) -> None:
    parts = written(tmp_path_factory.mktemp("parts"), tables)
    plan = shards.plan_shards(parts, "de", size)
    cut = shards_of(plan)
    needed = [[t for row in rows for t in shards.list_texts(CollectedPair(row, {}), "de")] for rows in tables]
    # Each in the first part that has it, in the order of the texts, as an ordered dictionary finds them.
    assert [text for part in cut for _, texts in part for text in texts] == list(
        dict.fromkeys(chain(*needed))
    )
    assert all(len(texts) == size for part in cut for _, texts in part[:-1])
    for key, texts in chain(*cut):
        shards.write_shard(key, [(text.upper(), text) if text != "c" else () for text in texts])
        assert shards.has_rows(shards.shard_file(key), len(texts))
        assert not shards.has_rows(shards.shard_file(key), len(texts) + 1)
    keys = [[key for key, _ in part] for part in cut]
    for number, asked in enumerate(needed):
        assert shards.find_translations(plan, number, keys) == [
            (text.upper(), text) if text != "c" else () for text in asked
        ]


@given(st.lists(ROWS, min_size=2, max_size=4))
def test_a_part_behind_the_others_changes_none_of_their_shards(tmp_path_factory, tables) -> None:
    parts = written(tmp_path_factory.mktemp("parts"), tables)
    assert (
        shards_of(shards.plan_shards(parts[:-1], "de", 2))
        == shards_of(shards.plan_shards(parts, "de", 2))[:-1]
    )


def test_names_depend_on_all_that_translations_do(tmp_path: Path) -> None:
    parts = written(tmp_path, [[pair()]])

    def name(lang="de", engine="engine 1", size=5):
        return next(shards.cut_shards(shards.plan_shards(parts, lang, size), 0, engine))[0]

    assert len({name(), name(lang="es"), name(engine="engine 2"), name(size=1)}) == 4
    assert name() == name()
    assert shards.hash_values("a", "bc") != shards.hash_values("ab", "c")


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
    parts = written(tmp_path, [[pair()]])
    monkeypatch.setattr(shards, "_scratch", partial(Path("/dev/full").open, "r+b"))
    monkeypatch.setattr(cache, "atomic_file", lambda path: nullcontext(Path("/dev/full")))
    for write in (
        lambda: shards.plan_shards(parts, "de", 1),
        lambda: shards._map_file(np.arange(9)),
        lambda: quality.write_embeddings("k", np.ones((9, 9), np.float32)),
    ):
        with pytest.raises(OSError, match="No space left") as raised:
            write()
        assert raised.value.errno == errno.ENOSPC
