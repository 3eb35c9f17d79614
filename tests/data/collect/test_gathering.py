"""Sources read into parts, at once or with interruptions."""

import json

import pytest

from hexapla.config_data import Source
from hexapla.data.collect import gathering, sources
from hexapla.data.collect.sources import Tally
from hexapla.io import tables
from hexapla.schema import UserError

ROWS = 10
"""Of a part, in these tests."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gathering, "PART_ROWS", ROWS)
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
    return Source(kind="files", name="own", path=str(path), **own)


def read(one, here):
    return gathering.read(one, here, gathering.folder(one, here) or here / "scratch")


def pairs(gathered):
    return [pair for part in gathered.parts for pair in tables.stream_pairs(part)]


def whole(one, here):
    tally = Tally()
    return [*sources.pairs(sources.rows(one, here), one, tally)], tally


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


class Interrupted(Exception):
    pass


def interrupt_after(count, monkeypatch):
    """Break off reading after so many rows; returns what skips were asked for."""
    skips, rows = [], sources.rows

    def broken(one, sample, skip=0):
        skips.append(skip)
        for number, each in enumerate(rows(one, sample, skip)):
            if number == count:
                raise Interrupted
            yield each

    monkeypatch.setattr(sources, "rows", broken)
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
    expected, tally = whole(one, here)
    at_once = read(one, here)
    assert (pairs(at_once), at_once.tally) == (expected, tally)
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
    assert (pairs(resumed), resumed.tally) == (expected, tally)
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
    gathered = read(one, here)
    before = contents(here / "cache")
    gathered.parts[1].unlink()
    gathered.parts[3].with_suffix(".json").unlink()
    assert len(pairs(read(one, here))) == 35
    assert contents(here / "cache") == before


def test_another_content_or_another_setting_is_another_source(here):
    path = written(here / "rows.jsonl", [row(n) for n in range(5)])
    assert len(pairs(read(source(path), here))) == 5
    assert len(pairs(read(source(path, limit=3), here))) == 3
    written(path, [row(n) for n in range(7)])
    assert len(pairs(read(source(path), here))) == 7


def test_what_other_code_made_is_made_again(here, monkeypatch):
    one = source(written(here / "rows.jsonl", [row(1)]))
    before = gathering.folder(one, here)
    changed = written(here / "changed.py", [])
    monkeypatch.setattr(gathering, "__file__", str(changed))
    assert gathering.folder(one, here) != before


def test_a_source_that_may_have_changed_is_read_anew(here, monkeypatch):
    one = source(written(here / "rows.jsonl", [row(n) for n in range(12)]))
    monkeypatch.setattr(sources, "fingerprint", lambda *_: None)
    gathered = read(one, here)
    assert {part.parent for part in gathered.parts} == {here / "scratch"}
    assert len(pairs(gathered)) == 12
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


def test_a_clash_is_told_with_both_places(here):
    path = written(here / "rows.jsonl", [row(n) for n in range(25)] + [row(4, passage="Something else.")])
    read_ones = [read(source(path), here)]
    message = str(gathering.clash(read_ones, here, (0, 4), (2, 5)))
    assert message == (
        f"{path}:26: id 'r4' of source 'own' stood before with another text, at {path}:5; "
        "a source's ids must differ"
    )
