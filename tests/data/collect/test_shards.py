"""Shards: a source read at once or with interruptions; the rows of an id together, whatever their order was."""

import json
import random
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from hexapla.config import FilesSource
from hexapla.data.collect import dedup, shards, sources
from hexapla.data.collect.rows import SourceCounts, make_pairs
from hexapla.io import tables
from hexapla.schema import Pair, UserError

ROWS = 10
"""In each part, in these tests."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "SHARD_ROWS", ROWS)
    return tmp_path


def row(number, **own):
    return {
        "id": f"r{number}",
        "question": f"Where is {number}?",
        "passage": f"Number {number} is here.",
        **own,
    }


def written(path, rows):
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows), encoding="utf-8")
    return path


def source(path, **own):
    return FilesSource(name="own", path=str(path), **own)


def read(one, here):
    return shards.read_source(one, here, shards.find_folder(one, here) or here / "scratch")


def pairs(read_one):
    return [pair for part in read_one.parts for pair in tables.stream_pairs(part)]


def whole(one, here):
    counts = SourceCounts()
    return [*make_pairs(sources.read_rows(one, here), one, counts)], counts


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".TAG")
    return {path.relative_to(folder): path.read_bytes() for path in files}


class Interrupted(Exception):
    pass


def interrupt_after(count, monkeypatch):
    """Break off reading after so many rows; returns what skips were asked for."""
    skips, rows = [], sources.read_rows

    def broken(one, sample, skip=0):
        skips.append(skip)
        for number, each in enumerate(rows(one, sample, skip)):
            if number == count:
                raise Interrupted
            yield each

    monkeypatch.setattr(sources, "read_rows", broken)
    return skips


SCATTERED = [row(n, lang=lang) for lang in ("en", "de") for n in range(34)]
"""Each language by itself."""
CASES = {
    "plain": ([row(n) for n in range(35)], {}),
    "a whole number of parts": ([row(n) for n in range(30)], {}),
    "less than a part": ([row(n) for n in range(3)], {}),
    "a part of which nothing is left": (
        [row(n, answers=[] if 8 < n < 31 else ["here"]) for n in range(45)],
        {},
    ),
    "nothing at the end": ([row(n, answers=[] if n > 18 else ["here"]) for n in range(45)], {}),
    "a limit": ([row(n) for n in range(45)], {"limit": 17}),
    "a limit at a part's end": ([row(n) for n in range(45)], {"limit": 20}),
    "a limit, and other languages after it": (SCATTERED, {"limit": 17}),
    "a limit at a part's end, and other languages after it": (SCATTERED, {"limit": 20}),
    "lengths": ([row(n) for n in range(35)], {"min_question_chars": 12}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("after", [1, 10, 25])
def test_parts_hold_what_the_source_gives_and_so_they_do_after_interruptions(case, after, here, monkeypatch):
    rows, settings = CASES[case]
    one = source(written(here / "rows.jsonl", rows), **settings)
    expected, counts = whole(one, here)
    at_once = read(one, here)
    assert (pairs(at_once), at_once.counts) == (expected, counts)
    undisturbed = contents(here / "cache")

    monkeypatch.setenv("HEXAPLA_CACHE", str(here / "other"))
    with monkeypatch.context() as patch:
        interrupt_after(after, patch)
        for _ in range(len(rows)):  # each goes on where the one before it was broken off
            try:
                resumed = read(one, here)
            except Interrupted:
                if after <= ROWS:  # a part can't be finished, however often it is begun
                    break
            else:
                break
    resumed = read(one, here)
    assert (pairs(resumed), resumed.counts) == (expected, counts)
    assert contents(here / "other") == undisturbed


def test_what_is_there_is_not_read_again(here, monkeypatch):
    one = source(written(here / "rows.jsonl", [row(n) for n in range(35)]))
    with monkeypatch.context() as patch:
        skips = interrupt_after(32, patch)
        with pytest.raises(Interrupted):
            read(one, here)
    skips += interrupt_after(100, monkeypatch)
    assert len(pairs(read(one, here))) == 35
    assert skips == [0]
    skips = interrupt_after(0, monkeypatch)
    assert len(pairs(read(one, here))) == 35
    assert skips == []


def test_parts_that_someone_removed_are_made_again(here):
    one = source(written(here / "rows.jsonl", [row(n) for n in range(35)]))
    read_one = read(one, here)
    before = contents(here / "cache")
    read_one.parts[1].unlink()
    read_one.parts[3].with_suffix(".json").unlink()
    assert len(pairs(read(one, here))) == 35
    assert contents(here / "cache") == before


def test_another_content_or_another_setting_is_another_source(here):
    path = written(here / "rows.jsonl", [row(n) for n in range(5)])
    assert len(pairs(read(source(path), here))) == 5
    assert len(pairs(read(source(path, limit=3), here))) == 3
    written(path, [row(n) for n in range(7)])
    assert len(pairs(read(source(path), here))) == 7


def test_shards_of_another_format_are_made_again(here, monkeypatch):
    one = source(written(here / "rows.jsonl", [row(1)]))
    before = shards.find_folder(one, here)
    monkeypatch.setattr(shards, "FORMAT", shards.FORMAT + 1)
    assert shards.find_folder(one, here) != before


def test_a_source_that_may_have_changed_is_read_anew(here, monkeypatch):
    one = source(written(here / "rows.jsonl", [row(n) for n in range(12)]))
    monkeypatch.setattr(sources, "fingerprint", lambda *_: None)
    read_one = read(one, here)
    assert {part.parent for part in read_one.parts} == {here / "scratch"}
    assert len(pairs(read_one)) == 12
    assert not (here / "cache").exists()


def test_a_source_without_pairs_says_what_became_of_its_rows(here):
    rows = [row(1, answers=[]), row(2, answers=[]), row(3, answers=["here"])]
    with pytest.raises(UserError) as caught:
        read(source(written(here / "rows.jsonl", rows), min_passage_chars=500), here)
    assert str(caught.value) == (
        "collect.sources: no pairs in 'own' (3 read, 2 skipped, 1 short or long); "
        "mend the source or take it off the list"
    )


def test_a_wrong_row_leaves_the_parts_before_it_and_nothing_half_written(here):
    path = written(here / "rows.jsonl", [row(n) for n in range(20)] + [row(20, passage="")])
    with pytest.raises(UserError, match=r"rows.jsonl:21"):
        read(source(path), here)
    names = [name.name for name in contents(here / "cache")]
    assert names == ["00000.json", "00000.parquet"]


def test_an_id_with_two_texts_is_named_with_both_places(here):
    path = written(here / "rows.jsonl", [row(n) for n in range(25)] + [row(4, passage="Something else.")])
    read_ones = [read(source(path), here)]
    message = str(shards.make_conflict_error(read_ones, here, (0, 4), (2, 5)))
    assert message == (
        f"{path}:26: id 'r4' of source 'own' occurs before with another text, at {path}:5; "
        "a source's ids must differ"
    )


# --- the table -----------------------------------------------------------------------------------


def own_pair(id, lang="en"):
    passage_id = f"p{id % 7}" if lang == "en" else ""
    return Pair(f"own/{id}", "own", lang, f"{id} {lang}?", f"{id} in {lang}.", "", passage_id, "original")


def grouped(tmp_path, rows, size=100):
    """By way of files, with the fates that they get."""
    files = []
    for at in range(0, len(rows), size):
        files.append(tmp_path / "parts" / f"{at:05d}.parquet")
        tables.write_pairs(files[-1], rows[at : at + size])
    (tmp_path / "work").mkdir(exist_ok=True)
    fates = dedup.find_duplicates(files, 1.0, tmp_path / "work", ValueError)
    return [*shards.group_by_id(files, fates, tmp_path / "dealt")]


TRANSLATED = [
    own_pair(number, lang) for number in range(60) for lang in ("en", "zh", "de") if (number + len(lang)) % 5
]
EXPECTED = [
    [
        own_pair(number),
        *(own_pair(number, lang)._replace(passage_id=f"p{number % 7}") for lang in ("de", "zh")),
    ]
    for number in range(60)
    if (number + 2) % 5
]


@pytest.mark.parametrize("order", ["by id", "by language", "shuffled"])
@pytest.mark.parametrize("held", [1 << 17, 30, 2])
def test_rows_of_an_id_come_together_english_first_in_order_of_the_english(
    tmp_path, monkeypatch, order, held
):
    monkeypatch.setattr(shards, "HELD_ROWS", held)
    rows = [*TRANSLATED]
    if order == "by language":
        rows.sort(key=lambda row: row.lang)
    elif order == "shuffled":
        random.Random(0).shuffle(rows)
    expected = sorted(EXPECTED, key=lambda group: rows.index(group[0]))
    assert grouped(tmp_path, rows) == expected
    assert (tmp_path / "dealt").exists() == (order != "by id")


def test_what_does_not_stay_is_left_out(tmp_path):
    rows = [
        own_pair(1),
        own_pair(1, "de"),
        own_pair(2)._replace(question="1 en?", passage="1 in en."),
        own_pair(2, "de"),
    ]
    assert grouped(tmp_path, rows) == [[own_pair(1), own_pair(1, "de")._replace(passage_id="p1")]]
    assert grouped(tmp_path, [own_pair(3, "de")]) == []


def test_parts_are_full_and_tear_no_id(tmp_path):
    sizes = [3, 3, 4, 1, 9, 12, 2, 8]
    groups = [[own_pair(n)] + [own_pair(n, f"l{i}") for i in range(size - 1)] for n, size in enumerate(sizes)]
    languages = shards.write_table(tmp_path, "00-own", groups, 10)
    files = tables.table_files(tmp_path)
    assert [file.name for file in files] == [f"00-own-0000{n}.parquet" for n in range(4)]
    held = [[*tables.stream_pairs(file)] for file in files]
    assert [len(rows) for rows in held] == [10, 10, 12, 10]
    assert [*chain(*held)] == [*chain(*groups)]
    assert languages == Counter(row.lang for group in groups for row in group)


def test_few_rows_are_held_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "HELD_ROWS", 20)
    seen = []
    stream = tables.stream_pairs
    rows = [*TRANSLATED]
    random.Random(0).shuffle(rows)

    def counted(path):
        found = [*stream(path)]
        seen.append((path, len(found)))
        return iter(found)

    monkeypatch.setattr(tables, "stream_pairs", counted)
    grouped(tmp_path, rows)
    sizes = [count for path, count in seen if path.parent == tmp_path / "dealt"]
    assert len(sizes) == pytest.approx(len(EXPECTED) * 3 / 20, abs=2)
    assert max(sizes) <= 22
    assert np.sum(sizes) == sum(map(len, EXPECTED))
