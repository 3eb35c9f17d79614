"""The rows of an id together, whatever their order was."""

import random
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from hexapla.data.collect import distinct, grouping
from hexapla.io import tables
from hexapla.schema import Pair


def pair(id, lang="en"):
    passage_id = f"p{id % 7}" if lang == "en" else ""
    return Pair(f"own/{id}", "own", lang, f"{id} {lang}?", f"{id} in {lang}.", "", passage_id, "original")


def grouped(tmp_path, rows, size=100):
    """By way of files, with the verdicts that they get."""
    files = []
    for at in range(0, len(rows), size):
        files.append(tmp_path / "parts" / f"{at:05d}.parquet")
        tables.write_pairs(files[-1], rows[at : at + size])
    (tmp_path / "work").mkdir(exist_ok=True)
    verdicts = distinct.judge(files, 1.0, tmp_path / "work", ValueError)
    return [*grouping.groups(files, verdicts, tmp_path / "dealt")]


ROWS = [pair(number, lang) for number in range(60) for lang in ("en", "zh", "de") if (number + len(lang)) % 5]
EXPECTED = [
    [pair(number), *(pair(number, lang)._replace(passage_id=f"p{number % 7}") for lang in ("de", "zh"))]
    for number in range(60)
    if (number + 2) % 5
]


@pytest.mark.parametrize("order", ["by id", "by language", "shuffled"])
@pytest.mark.parametrize("held", [1 << 17, 30, 2])
def test_rows_of_an_id_come_together_english_first_in_order_of_the_english(
    tmp_path, monkeypatch, order, held
):
    monkeypatch.setattr(grouping, "_HELD", held)
    rows = [*ROWS]
    if order == "by language":
        rows.sort(key=lambda row: row.lang)
    elif order == "shuffled":
        random.Random(0).shuffle(rows)
    expected = sorted(EXPECTED, key=lambda group: rows.index(group[0]))
    assert grouped(tmp_path, rows) == expected
    assert (tmp_path / "dealt").exists() == (order != "by id")


def test_what_does_not_stay_is_left_out(tmp_path):
    rows = [pair(1), pair(1, "de"), pair(2)._replace(question="1 en?", passage="1 in en."), pair(2, "de")]
    assert grouped(tmp_path, rows) == [[pair(1), pair(1, "de")._replace(passage_id="p1")]]
    assert grouped(tmp_path, [pair(3, "de")]) == []


def test_parts_are_full_and_tear_no_id(tmp_path):
    sizes = [3, 3, 4, 1, 9, 12, 2, 8]
    groups = [[pair(n)] + [pair(n, f"l{i}") for i in range(size - 1)] for n, size in enumerate(sizes)]
    languages = grouping.write(tmp_path, "00-own", groups, 10)
    files = tables.table_files(tmp_path)
    assert [file.name for file in files] == [f"00-own-0000{n}.parquet" for n in range(4)]
    held = [[*tables.stream_pairs(file)] for file in files]
    assert [len(rows) for rows in held] == [10, 10, 12, 10]
    assert [*chain(*held)] == [*chain(*groups)]
    assert languages == Counter(row.lang for group in groups for row in group)


def test_few_rows_are_held_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(grouping, "_HELD", 20)
    seen = []
    stream = tables.stream_pairs
    rows = [*ROWS]
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
