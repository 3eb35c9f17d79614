"""Files: whatever form rows come in, they are the same, and what is broken is named with its place."""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.io import readers
from hexapla.io.readers import Skip
from hexapla.schema import UserError

WANTED = [{"question": "Wer, „du“?", "passage": "a\nb"}, {"question": "2", "passage": "é"}]
JSONL = '{"question": "Wer, „du“?", "passage": "a\\nb"}\n\n{"question": "2", "passage": "é"}'.encode()
CSV = 'question,passage\n"Wer, „du“?","a\nb"\n\n2,é\n'.encode()


def rows(tmp_path, name, content, format):
    path = tmp_path / name
    path.write_bytes(content)
    return [row for _, row in readers.read_rows(path, format)]


def test_the_row_formats_agree(tmp_path):
    pq.write_table(pa.Table.from_pylist(WANTED), tmp_path / "r.parquet")
    bom = b"\xef\xbb\xbf"
    for name, content in {"r.csv": CSV, "r.jsonl": JSONL}.items():
        kind = readers.format_of(Path(name))
        assert rows(tmp_path, name, content, kind) == WANTED
        assert rows(tmp_path, f"bom-{name}", bom + content, kind) == WANTED
        packed = tmp_path / f"{name}.gz"
        assert rows(tmp_path, packed.name, gzip.compress(content), readers.format_of(packed)) == WANTED
    assert [row for _, row in readers.read_rows(tmp_path / "r.parquet", "parquet")] == WANTED
    # Columns without a name, as spreadsheets leave them behind, are no two of one name.
    assert rows(tmp_path, "e.csv", b"a,,\n1,,\n", "csv") == [{"a": "1", "": ""}]
    # No quoting in TSV: a quotation mark is one.
    tsv = b'question\tpassage\n"Who"?\tA, "b.\n'
    assert rows(tmp_path, "r.tsv", tsv, "tsv") == [{"question": '"Who"?', "passage": 'A, "b.'}]


def test_formats_are_told_by_the_suffix():
    names = {
        "a.JSONL": "jsonl",
        "a.csv.gz": "csv",
        "a.tsv": "tsv",
        "a.b.parquet": "parquet",
        "a.json": "squad",
    }
    assert {name: readers.format_of(Path(name)) for name in names} == names
    for name in ("a.txt", "a.gz", "a", "csv"):
        with pytest.raises(UserError, match="format unknown"):
            readers.format_of(Path(name))


@pytest.mark.parametrize(
    ("name", "content", "format", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "jsonl", "a.jsonl:2: broken JSON"),
        ("a.jsonl", b"[1]\n", "jsonl", "a.jsonl:1: wants a JSON object"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", "jsonl", "a.jsonl:1: broken JSON"),
        ("a.jsonl", b'{"a": ' + b"1" * 5000 + b"}\n", "jsonl", "a.jsonl:1: broken JSON"),
        ("a.jsonl", b"\xff\xfe", "jsonl", "a.jsonl:1: not UTF-8 text .byte 1 of the line is 0xff"),
        ("a.jsonl", b'{"a": 1}\n{"a": "M\xfcller"}', "jsonl", "a.jsonl:2: not UTF-8 .*byte 9 .*0xfc"),
        ("a.jsonl", b"", "jsonl", "a.jsonl: empty file"),
        ("a.csv", b"a,b\n1,2\n3\n", "csv", "a.csv:3: the row has not as many fields"),
        ("a.csv", b"a,b\n1,2,3\n", "csv", "a.csv:2: the row has not as many fields"),
        ("a.csv", b'a,b\n1,"2\n', "csv", "a.csv:2: broken CSV"),
        ("a.csv", b"a,b,a\n1,2,3\n", "csv", "a.csv:1: two columns are called 'a'"),
        ("a.csv", b"a,b\n1,2\n3,\xe9\n", "csv", "a.csv:3: not UTF-8"),
        ("a.parquet", b"PAR1 and then nothing", "parquet", "a.parquet: not a readable Parquet"),
        ("a.jsonl.gz", b"no archive", "jsonl", "a.jsonl.gz: broken gzip archive"),
        ("a.jsonl.gz", gzip.compress(JSONL, mtime=0)[:-12], "jsonl", "a.jsonl.gz: broken gzip archive"),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)[:-2] + b"00", "csv", "a.csv.gz: broken gzip archive"),
        (
            "a.json",
            b'{"data": [{"paragraphs": [{"qas": [{"id": "q"}]}]}]}',
            "squad",
            "question 'q': not SQuAD",
        ),
        ("a.json", b'{"data":\n [}', "squad", "a.json:2: broken JSON"),
        ("a.json", b"[1]", "squad", "a.json: not SQuAD's format"),
        ("a.json", b"[" * 200_000, "squad", "a.json: broken JSON"),
        ("a.json", b'{"data": ' + b"1" * 5000 + b"}", "squad", "a.json: broken JSON"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, format, message):
    with pytest.raises(UserError, match=message) as caught:
        rows(tmp_path, name, content, format)
    assert "\n" not in str(caught.value)


def test_a_truncated_parquet_file_is_refused(tmp_path):
    pq.write_table(pa.table({"a": ["x" * 100] * 1000}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(UserError, match="a.parquet: not a readable Parquet file"):
        rows(tmp_path, "a.parquet", whole[: len(whole) // 2], "parquet")


def test_a_line_that_is_too_long_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_LINE", 1 << 20)
    good = b'{"a": "' + b"x" * 1000 + b'"}\n'
    packed = gzip.compress(good + b'{"a": "' + b"y" * (300 << 20) + b'"}\n', 1)
    assert len(packed) < 4 << 20
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    import tracemalloc

    found = readers.read_rows(tmp_path / "a.jsonl.gz", "jsonl")
    assert next(found)[0].endswith(":1")
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a.jsonl.gz:2: a line of more than 1 MiB"):
        next(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_squads_json_may_be_one_long_line(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_LINE", 1000)
    qas = [{"id": "q", "question": "Who?", "answers": []}]
    tree = {"data": [{"paragraphs": [{"context": "x" * 2000, "qas": qas}]}]}
    (row,) = rows(tmp_path, "a.json", json.dumps(tree).encode(), "squad")
    assert len(row["passage"]) == 2000


@pytest.mark.parametrize(
    "column",
    [pa.array([0, 2**42], pa.timestamp("s")), pa.array([0, 10**17], pa.date64())],
    ids=lambda column: str(column.type),
)
def test_values_that_python_does_not_have_are_refused_in_one_line(tmp_path, column):
    pq.write_table(pa.table({"a": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet: not a readable Parquet file") as caught:
        list(readers.read_rows(tmp_path / "a.parquet", "parquet"))
    assert "\n" not in str(caught.value)


def test_the_memory_for_parquet_does_not_grow_with_a_row_group(tmp_path):
    code = (
        "import sys, pyarrow as pa\n"
        "from pathlib import Path\n"
        "from hexapla.io import readers\n"
        "assert sum(1 for _ in readers.read_rows(Path(sys.argv[1]), 'parquet')) == 8000\n"
        "print(pa.default_memory_pool().max_memory())\n"
    )
    texts = [random.Random(n).randbytes(4000).hex() for n in range(8000)]  # 64 MB, which do not shrink
    pq.write_table(
        pa.table({"a": texts}), tmp_path / "a.parquet", row_group_size=8000, use_dictionary=False,
        compression="none",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.parquet"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 32 << 20


def test_a_file_is_read_as_rows_are_asked_for(tmp_path):
    first = b'{"a": 1}\n'
    assert len(rows(tmp_path, "a.jsonl", first * 3, "jsonl")) == 3
    (tmp_path / "a.jsonl").write_bytes(first + b"broken" * 100_000)
    assert next(readers.read_rows(tmp_path / "a.jsonl", "jsonl"))[1] == {"a": 1}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Forty rows in each format; several row groups in Parquet."""
    folder = tmp_path_factory.mktemp("formats")
    made = [{"id": f"{i}", "question": f"{i}?", "passage": "a,\nb"} for i in range(40)]
    (folder / "a.jsonl").write_text("\n\n".join(map(json.dumps, made)))
    lines = "".join(f'{row["id"]},{row["question"]},"{row["passage"]}"\n' for row in made)
    (folder / "a.csv").write_text("id,question,passage\n" + lines)
    (folder / "b.csv.gz").write_bytes(gzip.compress((folder / "a.csv").read_bytes()))
    pq.write_table(pa.Table.from_pylist(made), folder / "a.parquet", row_group_size=7)
    paragraphs = [
        {"context": row["passage"], "qas": [{"id": row["id"], "question": row["question"], "answers": []}]}
        for row in made
    ]
    (folder / "a.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return sorted(folder.iterdir())


@given(st.integers(0, 45))
def test_skipped_rows_are_those_at_the_beginning(everything, many):
    for path in everything:
        kind, skip = readers.format_of(path), Skip(many)
        whole = list(readers.read_rows(path, kind))
        assert len(whole) == 40
        assert list(readers.read_rows(path, kind, skip)) == whole[many:]
        assert skip.left == max(0, many - 40)


def test_tmx_units_by_language_and_no_entities(tmp_path):
    path = tmp_path / "m.tmx"
    path.write_text(
        '<tmx version="1.4"><body><tu><tuv xml:lang="en"><seg>A <b>cat</b></seg></tuv>'
        '<tuv xml:lang="de-AT"><seg>Eine Katze</seg></tuv></tu></body></tmx>'
    )
    assert [texts for _, texts in readers.read_tmx(path)] == [{"en": "A cat", "de": "Eine Katze"}]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match="broken XML"):
        list(readers.read_tmx(path))
    path.write_text('<!DOCTYPE t [<!ENTITY a "b">]><tmx/>')
    with pytest.raises(UserError, match="entities"):
        list(readers.read_tmx(path))


def test_markup_in_a_segment_is_no_text_of_it(tmp_path):
    path = tmp_path / "m.tmx"
    path.write_text(
        '<tmx><body><tu><tuv xml:lang="en"><seg>A <bpt i="1">&lt;b&gt;</bpt><hi>cat</hi>'
        '<ept i="1">&lt;/b&gt;</ept> <it pos="begin">[</it>sleeps<ph>{0 <sub>a note <hi>x</hi></sub>}</ph>.'
        "<ut>%</ut> Yes.</seg></tuv></tu></body></tmx>"
    )
    assert [texts for _, texts in readers.read_tmx(path)] == [{"en": "A cat sleeps. Yes."}]


def test_of_two_variants_of_a_language_the_first_counts(tmp_path):
    path = tmp_path / "m.tmx"
    variants = "".join(
        f'<tuv xml:lang="{lang}"><seg>{lang}</seg></tuv>' for lang in ("en-GB", "de_DE", "EN", "de")
    )
    for whole in (f"<tmx><body><tu>{variants}</tu></body></tmx>", f"<tu>{variants}</tu>"):
        path.write_text(whole)
        assert [texts for _, texts in readers.read_tmx(path)] == [{"en": "en-GB", "de": "de_DE"}]


@pytest.mark.parametrize("encoding", ["Shift_JIS", "GB18030", "nope"])
def test_tmx_in_an_encoding_that_can_t_be_read_is_one_line(tmp_path, encoding):
    path = tmp_path / "m.tmx"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><tmx><body/></tmx>')
    with pytest.raises(UserError, match=r"m\.tmx.*; save the file as UTF-8") as caught:
        list(readers.read_tmx(path))
    assert "\n" not in str(caught.value)


def test_the_memory_for_tmx_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    unit = '<tu tuid="a/question"><tuv xml:lang="en"><seg>The cat sleeps.</seg></tuv></tu>\n'
    peaks = []
    for units in (500, 5000):
        path = tmp_path / f"{units}.tmx"
        path.write_text(f"<tmx><header/><body>{unit * units}</body></tmx>")
        tracemalloc.start()
        assert sum(1 for _ in readers.read_units(path)) == units
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5
