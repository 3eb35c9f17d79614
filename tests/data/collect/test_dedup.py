"""Duplicates: which rows stay, against a plain reading of the rule; near ones, against exact Jaccard similarities."""

import hashlib
import random
import string
import unicodedata

import numpy as np
import pytest

from hexapla.data.collect import dedup
from hexapla.data.collect.dedup import DUPLICATE, KEPT, NEAR_DUPLICATE, REPEATED, WITHOUT_ENGLISH
from hexapla.io import hashing, tables
from hexapla.schema import Pair

LONG = "There is a passage of some length here, whose words are the same but for a few at its end: "


class ConflictError(Exception):
    pass


def pair(id, lang="en", question="", passage=""):
    return Pair(
        id, "own", lang, question or f"What is {id}?", passage or f"{id} in {lang}", "", "", "original"
    )


def find_duplicates(tmp_path, *parts, threshold=1.0):
    files = []
    for number, rows in enumerate(parts):
        files.append(tmp_path / f"{number:05d}.parquet")
        tables.write_pairs(files[-1], rows)
    (tmp_path / "work").mkdir(exist_ok=True)

    return dedup.find_duplicates(files, threshold, tmp_path / "work", ConflictError)


def test_the_first_of_equal_pairs_stays_in_whatever_part(tmp_path):
    result = find_duplicates(
        tmp_path,
        [pair("a", question="Q", passage="P"), pair("b", question="Q", passage="Other")],
        [],
        [pair("c", question=" Q ", passage="P"), pair("d", question="Q", passage="Other \n")],
        [pair("e", question="p", passage="Q")],
    )
    assert result.fates.tolist() == [KEPT, KEPT, DUPLICATE, DUPLICATE, KEPT]
    assert result.owners.tolist() == [0, 1, 2, 3, 4]


def test_near_duplicates_go_as_far_as_they_are_asked_to(tmp_path):
    rows = [
        pair("a", question="What is it that is asked?", passage=LONG + "one."),
        pair("b", question="What is it, that is asked?", passage=LONG + "two."),
        pair("c", question="What else might be asked?", passage=LONG + "two."),
        pair("d", question="What is it that is asked?", passage=LONG + "one."),
    ]
    assert find_duplicates(tmp_path, rows).fates.tolist() == [KEPT, KEPT, KEPT, DUPLICATE]
    got = find_duplicates(tmp_path, rows[:2], rows[2:], threshold=0.8)
    assert got.fates.tolist() == [KEPT, NEAR_DUPLICATE, KEPT, DUPLICATE]


def test_signatures_are_made_once(tmp_path, monkeypatch):
    rows = [pair(str(n)) for n in range(5)]
    first = find_duplicates(tmp_path, rows, threshold=0.8)
    monkeypatch.setattr(dedup, "sign_pairs", None)
    assert (find_duplicates(tmp_path, rows, threshold=0.8).fates == first.fates).all()


def test_other_languages_go_with_their_english_row_wherever_it_stands(tmp_path):
    result = find_duplicates(
        tmp_path,
        [pair("b", "de"), pair("a"), pair("a", "de")],
        [pair("b", question="What is a?", passage="a in en"), pair("c"), pair("x", "de")],
        [pair("c", "de"), pair("c", "de"), pair("c", "fr")],
    )
    assert result.fates.tolist() == [
        DUPLICATE, KEPT, KEPT, DUPLICATE, KEPT, WITHOUT_ENGLISH, KEPT, REPEATED, KEPT,
    ]  # fmt: skip
    assert result.owners.tolist() == [3, 1, 1, 3, 4, -1, 4, 4, 4]


@pytest.mark.parametrize("lang", ["en", "de"])
def test_an_id_with_two_texts_is_named_with_both_places(tmp_path, lang):
    rows = [pair(str(n)) for n in range(5)] + [pair("2", "de"), pair("3", "fr")]
    changed = pair("2", lang, passage="changed")
    with pytest.raises(ConflictError) as caught:
        find_duplicates(tmp_path, rows[:3], rows[3:], [changed, changed])
    assert caught.value.args == {"en": ((0, 2), (2, 0)), "de": ((1, 2), (2, 0))}[lang]


def test_large_random_tables_give_what_sets_give(tmp_path, monkeypatch):
    rng = random.Random(0)
    monkeypatch.setattr(hashing, "_SORTED_AT_ONCE", 100)
    monkeypatch.setattr(dedup, "_BATCH_ROWS", 64)
    ids = {(str(n), lang): str(rng.randrange(400)) for n in range(500) for lang in ("en", "de", "fr")}
    rows = [pair(*key, question="Q", passage=text) for key, text in ids.items() if rng.random() < 0.8]
    rows += rng.choices(rows, k=200)
    rng.shuffle(rows)
    result = find_duplicates(tmp_path, *(rows[at : at + 300] for at in range(0, len(rows), 300)))
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
    assert result.fates.tolist() == expected
    assert len(np.unique(result.fates)) == 4


# --- near duplicates -----------------------------------------------------------------------------

WORDS = ["".join(random.Random(i).choices(string.ascii_lowercase, k=2 + i % 9)) for i in range(3000)]


def text(rng, words):
    return " ".join(rng.choices(WORDS, k=words))


def edited(rng, whole, share):
    """The text with about this share of its words replaced."""
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in whole.split())


def shingles(whole):
    plain = "\0" * 4 + whole.replace(" ", "").lower() + "\0" * 4
    return {plain[i : i + 5] for i in range(len(plain) - 4)}


def jaccard(one, two):
    one, two = shingles(one), shingles(two)
    return len(one & two) / len(one | two)


def kept(pairs, threshold=0.8):
    """For each (question, passage) the place of the one that it goes for."""
    signatures = dedup.sign_pairs(*zip(*pairs, strict=True))
    return dedup.find_first_near(signatures, np.arange(len(pairs)), threshold).tolist()


def test_the_estimate_is_near_the_exact_similarity_and_not_biased():
    rng = random.Random(1)
    whole = [text(rng, rng.randint(3, 60)) for _ in range(600)]
    other = [edited(rng, one, rng.random() ** 2) for one in whole]
    one, two = dedup.sign_pairs(whole, whole)["passage"], dedup.sign_pairs(other, other)["passage"]
    errors = dedup.estimate_similarity(one, two) - [*map(jaccard, whole, other)]
    assert abs(errors.mean()) < 0.006
    assert errors.std() < 0.06  # sqrt(0.25 / 80) at most


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8, 0.9])
def test_what_is_clearly_above_the_threshold_goes_and_what_is_clearly_below_stays(threshold):
    rng = random.Random(2)
    pairs, expected = [], []
    for _ in range(700):
        question, passage = text(rng, 25), text(rng, 60)
        share = 0.3 * rng.random() ** 3
        twin = edited(rng, question, share), edited(rng, passage, share)
        pairs += [(question, passage), twin]
        expected.append(min(jaccard(question, twin[0]), jaccard(passage, twin[1])))
    found = kept(pairs, threshold)
    assert found[::2] == [*range(0, len(pairs), 2)]
    assert all(one in (place, place - 1) for place, one in enumerate(found))
    gone = np.array([one % 2 == 0 for one in found[1::2]])
    expected = np.array(expected)
    above, below = expected >= threshold + 0.06, expected < threshold - 0.12
    assert min(above.sum(), below.sum()) > 40
    assert gone[above].mean() >= 0.95
    assert not gone[below].any()


def test_bands_find_what_is_just_similar_enough_and_meet_few_others():
    for threshold in np.arange(0.52, 1, 0.01):
        count, values = dedup.choose_bands(threshold)
        assert 2 * values <= 8
        assert 1 - (1 - threshold ** (2 * values)) ** count > 0.94
    count, values = dedup.choose_bands(0.8)
    pairs = 1e7**2 / 2
    assert pairs * count * (0.05 + 1 / 256) ** (2 * values) < 1e5


def test_many_questions_on_a_passage_stay_and_so_does_a_question_asked_of_many():
    rng = random.Random(3)
    one = text(rng, 80)
    on_one = [(text(rng, 9), one) for _ in range(200)]
    of_many = [(on_one[0][0], text(rng, 80)) for _ in range(200)]
    assert kept(on_one + of_many) == [*range(400)]


def test_case_punctuation_and_spaces_make_no_difference_but_numbers_do():
    passage = "The tower was begun in 1887, and finished two years later, for the fair."
    asked = "How many people lived in the whole of the city and its suburbs in the year 1910?"
    assert jaccard(asked, asked.replace("1910", "1920")) > 0.8
    others = [(asked.upper(), passage.replace(",", "")), (asked.replace("1910", "1920"), passage)]
    assert kept([(asked, passage), *others]) == [0, 0, 2]


def test_texts_shorter_than_a_shingle_must_be_equal():
    rng = random.Random(4)
    passage = text(rng, 80)
    twin = passage + " more"
    asked = ["Why?", "why", "How?", "", "?", "Whyever not?"]
    assert kept([(one, other) for one, other in zip(asked, [passage, twin] * 3, strict=True)]) == [
        0, 0, 2, 3, 3, 5,
    ]  # fmt: skip
    assert kept([(passage, "No."), (twin, "no"), (twin, "Yes.")]) == [0, 0, 2]


def test_nothing_goes_for_one_that_goes():
    """Each near to the next alone: the second goes for the first, and so the third stays."""
    words = [text(random.Random(9), 60).split()]
    for start in (0, 4):
        words.append([*words[-1]])
        words[-1][start : start + 4] = text(random.Random(start + 50), 4).split()
    one, two, three = (" ".join(each) for each in words)
    assert min(jaccard(one, two), jaccard(two, three)) > 0.85
    assert jaccard(one, three) < 0.8
    pairs = [("What is asked of all the three?", each) for each in (one, two, three)]
    assert kept(pairs) == [0, 0, 2]
    assert kept(pairs[::-1]) == [0, 0, 2]
    assert kept([pairs[1], pairs[0], pairs[2]]) == [0, 0, 0]


def test_a_bucket_may_hold_several_that_are_near_to_each_other_alone():
    rng = np.random.default_rng(6)
    signatures = np.zeros(9, dedup.SIGNATURE)
    for cluster in range(3):
        for name, turn in (("question", 0), ("passage", 1)):
            values = rng.integers(256, size=80).astype(np.uint8)
            values[:4] = 7  # all meet in the first band, and in no other
            for member in range(3):
                own = values.copy()
                own[4 + 4 * turn :: 8] += np.uint8(member)
                signatures[name][member * 3 + cluster] = own
    assert dedup.estimate_similarity(signatures["question"][[0]], signatures["question"][[3]])[0] > 0.85
    assert dedup.find_first_near(signatures, np.arange(9), 0.8).tolist() == [0, 1, 2] * 3


def test_only_the_rows_asked_for_are_compared():
    pairs = [("What is asked of them?", text(random.Random(7), 40))] * 4
    signatures = dedup.sign_pairs(*zip(*pairs, strict=True))
    assert dedup.find_first_near(signatures, np.array([1, 3]), 0.8).tolist() == [1, 1]
    assert dedup.find_first_near(signatures, np.zeros(0, np.int64), 0.8).tolist() == []


def test_a_signature_does_not_depend_on_its_neighbours(monkeypatch):
    rng = random.Random(8)
    texts = [text(rng, rng.randint(0, 90)) for _ in range(60)] + [
        "",
        "\u4f60\u597d\u4e16\u754c\U0001f600" * 4,
    ]
    whole = dedup.sign_pairs(texts, texts[::-1])
    monkeypatch.setattr(dedup, "_HASHED_CHARS", 300)
    assert (dedup.sign_pairs(texts, texts[::-1]) == whole).all()
    alone = [dedup.sign_pairs([one], [two])[0] for one, two in zip(texts, texts[::-1], strict=True)]
    assert (np.array(alone) == whole).all()


def test_signatures_are_the_same_everywhere():
    """If this fails because signatures change, raise `dedup.SIGNATURE_FORMAT`."""
    signed = dedup.sign_pairs(
        ["What is a hexapla?"], ["The Old Testament in six columns, by Origen of Alexandria."]
    )
    digest = hashlib.sha256(signed.tobytes()).hexdigest()[:16]
    assert digest == "a0c2e601eac2d206"


@pytest.mark.parametrize(("owner", "name"), [(dedup, "SIGNATURE_FORMAT"), (unicodedata, "unidata_version")])
def test_signatures_of_another_format_or_another_unicode_have_another_name(owner, name, monkeypatch):
    before = dedup.name_signatures()
    assert dedup.name_signatures() == before
    monkeypatch.setattr(owner, name, "0")
    assert dedup.name_signatures() != before
