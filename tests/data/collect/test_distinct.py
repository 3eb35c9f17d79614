"""Which rows stay, against a plain reading of the rule."""

import random

import numpy as np
import pytest

from hexapla.data.collect import distinct
from hexapla.data.collect.distinct import DUPLICATE, KEPT, NEAR_DUPLICATE, REPEATED, WITHOUT_ENGLISH
from hexapla.io import hashing, tables
from hexapla.schema import Pair

LONG = "There is a passage of some length here, whose words are the same but for a few at its end: "


class Clash(Exception):
    pass


def pair(id, lang="en", question="", passage=""):
    return Pair(
        id, "own", lang, question or f"What is {id}?", passage or f"{id} in {lang}", "", "", "original"
    )


def judged(tmp_path, *parts, threshold=1.0):
    files = []
    for number, rows in enumerate(parts):
        files.append(tmp_path / f"{number:05d}.parquet")
        tables.write_pairs(files[-1], rows)
    (tmp_path / "work").mkdir(exist_ok=True)

    return distinct.judge(files, threshold, tmp_path / "work", Clash)


def test_the_first_of_equal_pairs_stays_in_whatever_part(tmp_path):
    verdicts = judged(
        tmp_path,
        [pair("a", question="Q", passage="P"), pair("b", question="Q", passage="Other")],
        [],
        [pair("c", question=" Q ", passage="P"), pair("d", question="Q", passage="Other \n")],
        [pair("e", question="p", passage="Q")],
    )
    assert verdicts.fates.tolist() == [KEPT, KEPT, DUPLICATE, DUPLICATE, KEPT]
    assert verdicts.owners.tolist() == [0, 1, 2, 3, 4]


def test_near_duplicates_go_as_far_as_they_are_asked_to(tmp_path):
    rows = [
        pair("a", question="What is it that is asked?", passage=LONG + "one."),
        pair("b", question="What is it, that is asked?", passage=LONG + "two."),
        pair("c", question="What else might be asked?", passage=LONG + "two."),
        pair("d", question="What is it that is asked?", passage=LONG + "one."),
    ]
    assert judged(tmp_path, rows).fates.tolist() == [KEPT, KEPT, KEPT, DUPLICATE]
    got = judged(tmp_path, rows[:2], rows[2:], threshold=0.8)
    assert got.fates.tolist() == [KEPT, NEAR_DUPLICATE, KEPT, DUPLICATE]


def test_signatures_are_made_once(tmp_path, monkeypatch):
    rows = [pair(str(n)) for n in range(5)]
    first = judged(tmp_path, rows, threshold=0.8)
    monkeypatch.setattr(distinct.near, "sign", None)
    assert (judged(tmp_path, rows, threshold=0.8).fates == first.fates).all()


def test_other_languages_go_with_their_english_row_wherever_it_stands(tmp_path):
    verdicts = judged(
        tmp_path,
        [pair("b", "de"), pair("a"), pair("a", "de")],
        [pair("b", question="What is a?", passage="a in en"), pair("c"), pair("x", "de")],
        [pair("c", "de"), pair("c", "de"), pair("c", "fr")],
    )
    assert verdicts.fates.tolist() == [
        DUPLICATE, KEPT, KEPT, DUPLICATE, KEPT, WITHOUT_ENGLISH, KEPT, REPEATED, KEPT,
    ]  # fmt: skip
    assert verdicts.owners.tolist() == [3, 1, 1, 3, 4, -1, 4, 4, 4]


@pytest.mark.parametrize("lang", ["en", "de"])
def test_an_id_that_clashes_is_told_by_its_two_places(tmp_path, lang):
    rows = [pair(str(n)) for n in range(5)] + [pair("2", "de"), pair("3", "fr")]
    changed = pair("2", lang, passage="changed")
    with pytest.raises(Clash) as caught:
        judged(tmp_path, rows[:3], rows[3:], [changed, changed])
    assert caught.value.args == {"en": ((0, 2), (2, 0)), "de": ((1, 2), (2, 0))}[lang]


def test_large_random_tables_are_judged_as_by_sets(tmp_path, monkeypatch):
    rng = random.Random(0)
    monkeypatch.setattr(hashing, "_SORTED_AT_ONCE", 100)
    monkeypatch.setattr(distinct, "_AT_ONCE", 64)
    ids = {(str(n), lang): str(rng.randrange(400)) for n in range(500) for lang in ("en", "de", "fr")}
    rows = [pair(*key, question="Q", passage=text) for key, text in ids.items() if rng.random() < 0.8]
    rows += rng.choices(rows, k=200)
    rng.shuffle(rows)
    verdicts = judged(tmp_path, *(rows[at : at + 300] for at in range(0, len(rows), 300)))
    seen, english, fates = set(), {}, []
    for row in rows:
        if row.lang == "en":
            english.setdefault(row.id, DUPLICATE if row.passage in seen else KEPT)
            fates.append(DUPLICATE if row.passage in seen else KEPT)
            seen.add(row.passage)
    came, expected = set(), []
    fates = iter(fates)
    for row in rows:
        if row.lang == "en":
            expected.append(next(fates))
        elif row.id not in english:
            expected.append(WITHOUT_ENGLISH)
        else:
            expected.append(REPEATED if (row.id, row.lang) in came else english[row.id])
        came.add((row.id, row.lang))
    assert verdicts.fates.tolist() == expected
    assert len(np.unique(verdicts.fates)) == 4
