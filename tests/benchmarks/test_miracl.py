"""MIRACL format: both layouts say the same, the corpus streams, and what does not fit is named."""

import gzip
import json
import logging
import re
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.benchmarks import miracl
from hexapla.schema import UNFOUND, UserError

TOPICS = [("7#0", "Kí ni?"), ("8", "Where is it?"), ("9", "Nobody knows.")]
QRELS = [("7#0", "a#1", 1), ("7#0", "a#0", 0), ("8", "b#0", 1), ("8", "a#1", 2), ("9", "a#0", 0)]
CORPUS = [("a#0", "Ilé", "a house"), ("a#1", "", "no title"), ("b#0", "title alone", ""), ("b#1", "T", " x ")]


def published(folder, *, topics=TOPICS, qrels=QRELS, shards=(CORPUS[:2], CORPUS[2:]), lang="yo", split="dev"):
    own = folder / f"miracl-v1.0-{lang}"
    texts = {
        "topics": [f"{topic}\t{text}\n" for topic, text in topics],
        "qrels": [f"{topic}\tQ0\t{passage}\t{grade}\n" for topic, passage, grade in qrels],
    }
    for kind, lines in texts.items():
        (own / kind).mkdir(parents=True, exist_ok=True)
        file = own / kind / f"{kind}.miracl-v1.0-{lang}-{split}.tsv"
        file.write_text("".join(lines), encoding="utf-8")
    corpus = folder / f"miracl-corpus-v1.0-{lang}"
    corpus.mkdir(exist_ok=True)
    for number, shard in enumerate(shards):
        rows = [dict(zip(("docid", "title", "text"), row, strict=True)) for row in shard]
        document(corpus / f"docs-{number}.jsonl.gz", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def document(file, text):
    file.write_bytes(gzip.compress(text.encode()))


def mirrored(folder, *, key="_id", score=None, split="dev", qrels=QRELS):
    tables = {
        "corpus": {key: [p for p, _, _ in CORPUS], "title": [t for _, t, _ in CORPUS],
                   "text": [t for _, _, t in CORPUS]},
        "queries": {key: [t for t, _ in TOPICS], "text": [t for _, t in TOPICS]},
        "qrels": {"query-id": [t for t, _, _ in qrels], "corpus-id": [p for _, p, _ in qrels],
                  "score": pa.array([g for _, _, g in qrels], score or pa.int64())},
    }  # fmt: skip
    for kind, columns in tables.items():
        (folder / f"yo-{kind}").mkdir(parents=True, exist_ok=True)
        whole, name = pa.table(columns), f"yo-{kind}/{split}-%05d-of-00002.parquet"
        for number, part in enumerate((whole[:2], whole[2:])):
            pq.write_table(part, folder / (name % number))
    return folder


def everything(judged, size=3):
    ids = miracl.Ids(judged)
    for batch in miracl.batches(miracl.passages(judged), size):
        ids.add(batch)
    return ids


# --- good folders --------------------------------------------------------------------------------


def test_yoruba_as_published(miracl_yo):
    assert miracl.languages(miracl_yo) == ("yo",)
    judged = miracl.load(miracl_yo, "yo")
    assert (len(judged.topics), judged.skipped_topics) == (119, 0)
    assert sum(map(len, judged.relevant.values())) == 144
    assert {grade for each in judged.relevant.values() for grade in each.values()} == {1}
    ids = miracl.survey(judged)
    assert ids.count == 49_043
    assert ids.missing() == []
    first = next(miracl.passages(judged))
    assert (first.id, first.text[:10]) == ("598#0", "A aa ab ac")


def test_both_layouts_say_the_same(tmp_path, caplog):
    judged = [
        miracl.load(published(tmp_path / "own"), "yo"),
        miracl.load(mirrored(tmp_path / "mirror"), "yo"),
        miracl.load(mirrored(tmp_path / "newer", key="id", score=pa.float64()), "yo"),
    ]
    for each in judged:
        assert each.topics == [miracl.Topic("7#0", "Kí ni?"), miracl.Topic("8", "Where is it?")]
        assert each.relevant == {"7#0": {"a#1": 1}, "8": {"b#0": 1, "a#1": 2}}
        assert each.skipped_topics == 1
        assert [(p.id, p.text) for p in miracl.passages(each)] == [
            ("a#0", "Ilé a house"), ("a#1", "no title"), ("b#0", "title alone"), ("b#1", "T  x"),
        ]  # fmt: skip
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert "1 topics have no relevant passage" in caplog.text


def test_languages_by_folder_name(tmp_path):
    assert miracl.languages(tmp_path / "gone") == miracl.languages(tmp_path) == ()
    published(tmp_path)
    published(tmp_path, lang="de")
    mirrored(tmp_path)
    for name in ("fi-corpus", "sample-corpus", "pairs", "miracl-v2.0-ar"):
        (tmp_path / name).mkdir()
    (tmp_path / "en-corpus").write_text("no folder")
    assert miracl.languages(tmp_path) == ("de", "fi", "yo")


def test_shards_in_natural_order_and_batches(tmp_path):
    shards = [[(f"{number}#0", "", "text")] for number in range(12)]
    judged = miracl.load(published(tmp_path, qrels=[("8", "3#0", 1)], shards=shards), "yo")
    batches = list(miracl.batches(miracl.passages(judged), 5))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert [p.id for batch in batches for p in batch] == [f"{number}#0" for number in range(12)]
    assert batches[2][0].where.endswith("docs-10.jsonl.gz:1")


def test_a_corpus_without_split_but_never_topics_of_another(tmp_path):
    mirrored(tmp_path, split="test")
    with pytest.raises(UserError, match=r"yo-queries: holds no dev.*, but test-00000-of-00002\.parquet"):
        miracl.load(tmp_path, "yo")
    for kind in ("queries", "qrels"):
        for file in (tmp_path / f"yo-{kind}").iterdir():
            file.rename(file.with_name(file.name.replace("test", "dev")))
    assert len(list(miracl.passages(miracl.load(tmp_path, "yo")))) == 4


def test_the_corpus_is_never_held(tmp_path):
    text = "x" * 2000
    judged = miracl.load(published(tmp_path, shards=[[(f"p{i}", "", text) for i in range(10_000)]]), "yo")
    tracemalloc.start()
    ids = everything(judged, 500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids.count == 10_000
    assert peak < 3_000_000 < 10_000 * len(text)


# --- ids and ranks -------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 7))
def test_twins_are_found_wherever_they_stand(tmp_path_factory, numbers, size):
    corpus = [(f"p{number}", "", "x") for number in numbers] or [("p", "", "x")]
    shards = [corpus[:9], corpus[9:]]
    judged = miracl.load(published(tmp_path_factory.mktemp("twins"), shards=shards), "yo")
    if len(set(numbers)) == len(numbers):
        assert everything(judged, size).count == len(corpus)
        return
    again = next(i for i, number in enumerate(numbers) if number in numbers[:i])
    before = numbers.index(numbers[again])
    places = [
        rf"docs-{i // 9 if i < 9 else 1}\.jsonl\.gz:{i + 1 if i < 9 else i - 8}" for i in (again, before)
    ]
    with pytest.raises(
        UserError, match=rf"{places[0]}: passage id 'p{numbers[again]}' .* first at .*{places[1]};"
    ):
        everything(judged, size)


def test_ids_that_only_share_a_hash_are_no_twins(tmp_path, monkeypatch):
    class Same:
        def __init__(self, *_, **__):
            pass

        def digest(self):
            return bytes(8)

    judged = miracl.load(published(tmp_path), "yo")
    monkeypatch.setattr(miracl.hashlib, "blake2b", Same)
    assert everything(judged).positions == {"a#1": 1, "b#0": 2}


def test_ranks_and_grades(tmp_path):
    judged = miracl.load(published(tmp_path), "yo")
    ids = everything(judged)
    ranks, grades = miracl.ranks(judged, ids, np.array([[3, 1, 0], [1, 3, 0]]))
    assert ranks.tolist() == [[2, 0], [UNFOUND, 1]]
    assert grades.tolist() == [[1, 0], [1, 2]]
    assert ranks.dtype == grades.dtype == np.int64
    with pytest.raises(UserError, match="hits for 1 topics, it has 2"):
        miracl.ranks(judged, ids, np.zeros((1, 3), dtype=np.int64))


def test_judged_passages_that_the_corpus_lacks_are_never_found(tmp_path, caplog):
    qrels = [*QRELS, ("8", "gone#1", 1), ("7#0", "gone#0", 1), ("8", "gone#2", 0)]
    judged = miracl.load(published(tmp_path, qrels=qrels), "yo")
    ids = miracl.survey(judged)
    assert "of 4 relevant passages 2 are not in the corpus, 'gone#0' for one" in caplog.text
    assert ids.missing() == ["gone#0", "gone#1"]
    ranks, _ = miracl.ranks(judged, ids, np.array([[0, 1, 2, 3]] * 2))
    assert ranks.tolist() == [[2, UNFOUND, 0], [3, 2, UNFOUND]]


def test_judgements_for_no_topic_are_counted(tmp_path, caplog):
    miracl.load(published(tmp_path, qrels=[*QRELS, ("10", "a#0", 1), ("11", "a#0", 1)]), "yo")
    assert "judgements for 2 topics that do not exist, '10' for one" in caplog.text


# --- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"topics": [*TOPICS, ("8", "again")]}, "topics.miracl-v1.0-yo-dev.tsv:4: topic '8' occurs twice"),
        ({"topics": [("8", "x"), ("9\ty", "z")]}, "dev.tsv:2: has 3 fields, wants id, text"),
        ({"topics": [("8", " ")]}, "dev.tsv:1: column 'text' is empty"),
        ({"topics": [("", "x")]}, "dev.tsv:1: the id is '', wants text"),
        ({"topics": []}, "topics.miracl-v1.0-yo-dev.tsv: empty file"),
        ({"qrels": [("8", "a#0", 1), ("8", "", 1)]}, "qrels.miracl-v1.0-yo-dev.tsv:2: has 3 fields"),
        ({"qrels": [("8", "a#0", "0.5")]}, "dev.tsv:1: the grade is '0.5', wants a whole number"),
        ({"qrels": [("8", "a#0", "yes")]}, "dev.tsv:1: the grade is 'yes'"),
        (
            {"qrels": [("8", "a#0", 1), ("8", "a#0", 0)]},
            "dev.tsv:2: passage 'a#0' has two grades for topic '8'",
        ),
        ({"qrels": [("8", "a#0", 0), ("8", "a#1", -1)]}, "no topic has a relevant passage"),
        ({"shards": []}, "miracl-corpus-v1.0-yo: holds no docs-*.jsonl.gz, but nothing"),
    ],
)
def test_topics_and_judgements_that_do_not_fit(tmp_path, parts, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        miracl.load(published(tmp_path, **parts), "yo")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "miracl-corpus-v1.0-yo: the corpus is empty"),
        ('{"docid": "a", "title": "", "text": "x"}\n\n{"docid"', "docs-0.jsonl.gz:3: broken JSON ("),
        ('["a"]', "docs-0.jsonl.gz:1: wants a JSON object, got list"),
        ('{"title": "", "text": "x"}', ":1: no column 'docid' (it has title, text)"),
        ('{"docid": "a", "text": "x"}', ":1: no column 'title' (it has docid, text)"),
        ('{"docid": "a", "title": "", "text": 1}', ":1: column 'text' holds int, wants text"),
        ('{"docid": "a", "title": " ", "text": null}', ":1: both title and text are empty"),
        ('{"docid": null, "title": "", "text": "x"}', ":1: the id is None, wants text"),
        ('{"docid": "a", "title": "", "text": "\\ud800"}', ":1: holds half of a surrogate pair"),
    ],
)
def test_passages_that_do_not_fit(tmp_path, text, message):
    judged = miracl.load(published(tmp_path), "yo")
    judged.corpus[1].unlink()
    document(judged.corpus[0], text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        list(miracl.passages(judged._replace(corpus=judged.corpus[:1])))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "broken or truncated gzip"),
        (lambda data: b"docid" + data, "broken or truncated gzip (Not a gzipped file"),
        (lambda data: data[:12] + b"\xff\xff" + data[14:], "broken or truncated gzip"),
        (lambda data: b"", "empty file"),
        (lambda data: gzip.compress(b'{"docid": "\xe9"}'), "not UTF-8 text"),
    ],
)
def test_damaged_shards(tmp_path, damage, message):
    judged = miracl.load(published(tmp_path), "yo")
    judged.corpus[1].write_bytes(damage(judged.corpus[1].read_bytes()))
    with pytest.raises(UserError, match=re.escape(f"docs-1.jsonl.gz: {message}")):
        list(miracl.passages(judged))


def test_mirrors_that_do_not_fit(tmp_path):
    half = mirrored(tmp_path / "half", score=pa.float64(), qrels=[("8", "a#0", 1.0), ("8", "a#1", 0.5)])
    with pytest.raises(UserError, match=r"dev-00000-of-00002\.parquet, row 2: the grade is '0\.5'"):
        miracl.load(half, "yo")
    judged = miracl.load(mirrored(tmp_path / "other"), "yo")
    pq.write_table(pa.table({"_id": ["x"], "text": ["x"]}), judged.corpus[1])
    with pytest.raises(UserError, match=r"dev-00001.*, row 1: no column 'title' \(it has _id, text\)"):
        list(miracl.passages(judged))
    judged.corpus[1].write_bytes(judged.corpus[0].read_bytes()[:-9])
    with pytest.raises(UserError, match=r"dev-00001-of-00002\.parquet: not a readable Parquet file"):
        list(miracl.passages(judged))


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="gone: no such benchmark folder"):
        miracl.load(tmp_path / "gone", "yo")
    with pytest.raises(UserError, match="not MIRACL format; wants miracl-v1"):
        miracl.load(tmp_path, "yo")
    published(tmp_path)
    published(tmp_path, lang="fi")
    with pytest.raises(UserError, match="language 'de' is missing; it holds fi, yo"):
        miracl.load(tmp_path, "de")
    with pytest.raises(UserError, match=r"topics: holds no topics\S*-train\.tsv, but topics\S*-dev\.tsv"):
        miracl.load(tmp_path, "yo", "train")
    for file in (tmp_path / "miracl-corpus-v1.0-yo").iterdir():
        file.unlink()
    (tmp_path / "miracl-corpus-v1.0-yo").rmdir()
    with pytest.raises(UserError, match=r"miracl-corpus-v1\.0-yo: not found; download"):
        miracl.load(tmp_path, "yo")
