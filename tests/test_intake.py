import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hexapla import intake
from hexapla.records import Mistake


def rows(tmp_path, name, content, format):
    path = tmp_path / name
    path.write_bytes(content)
    return [row for _, row in intake.read_rows(path, format)]


def test_the_three_row_formats_agree(tmp_path):
    wanted = [{"question": "Wer, „du“?", "passage": "a\nb"}, {"question": "2", "passage": "é"}]
    pq.write_table(pa.Table.from_pylist(wanted), tmp_path / "r.parquet")
    csv = 'question,passage\n"Wer, „du“?","a\nb"\n2,é\n'.encode()
    jsonl = '{"question": "Wer, „du“?", "passage": "a\\nb"}\n\n{"question": "2", "passage": "é"}'.encode()
    assert rows(tmp_path, "r.csv", csv, "csv") == wanted
    assert rows(tmp_path, "r.jsonl", jsonl, "jsonl") == wanted
    assert [row for _, row in intake.read_rows(tmp_path / "r.parquet", "parquet")] == wanted


@pytest.mark.parametrize(
    ("name", "content", "format", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "jsonl", "a.jsonl:2: broken JSON"),
        ("a.jsonl", b"[1]\n", "jsonl", "a.jsonl:1: wants a JSON object"),
        ("a.jsonl", b"\xff\xfe", "jsonl", "a.jsonl: not UTF-8"),
        ("a.jsonl", b"", "jsonl", "a.jsonl: empty file"),
        ("a.csv", b"a,b\n1,2\n3\n", "csv", "a.csv:3: the row has not as many fields"),
        ("a.csv", b'a,b\n1,"2\n', "csv", "a.csv:2: broken CSV"),
        ("a.parquet", b"PAR1 and then nothing", "parquet", "a.parquet: not a readable Parquet"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, format, message):
    with pytest.raises(Mistake, match=message) as caught:
        rows(tmp_path, name, content, format)
    assert "\n" not in str(caught.value)


def test_tmx_units_by_language_and_no_entities(tmp_path):
    path = tmp_path / "m.tmx"
    path.write_text(
        '<tmx version="1.4"><body><tu><tuv xml:lang="en"><seg>A <b>cat</b></seg></tuv>'
        '<tuv xml:lang="de-AT"><seg>Eine Katze</seg></tuv></tu></body></tmx>'
    )
    assert [texts for _, texts in intake.read_tmx(path)] == [{"en": "A cat", "de": "Eine Katze"}]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(Mistake, match="broken XML"):
        list(intake.read_tmx(path))
    path.write_text('<!DOCTYPE t [<!ENTITY a "b">]><tmx/>')
    with pytest.raises(Mistake, match="entities"):
        list(intake.read_tmx(path))
