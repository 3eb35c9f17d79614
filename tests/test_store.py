import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla import store
from hexapla.records import Mistake, Pair

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(*[text] * len(Pair._fields)), max_size=20))
def test_pairs_come_back_as_they_went(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pairs") / "p.parquet"
    pairs = [Pair(*row) for row in rows]
    assert store.write_pairs(path, pairs) == len(pairs)
    assert list(store.iter_pairs(store.read_pairs(path))) == pairs


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(tmp_path):
    path = tmp_path / "p.parquet"
    store.write_pairs(path, [Pair(*"abcdefgh")])
    before = path.read_bytes()

    def broken():
        yield Pair(*"hgfedcba")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write_pairs(path, broken())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    with store.whole_folder(folder) as scratch:
        (scratch / "old").write_text("1")
    with pytest.raises(RuntimeError), store.whole_folder(folder) as scratch:
        (scratch / "new").write_text("2")
        raise RuntimeError
    assert [file.name for file in folder.iterdir()] == ["old"]
    with store.whole_folder(folder) as scratch:
        (scratch / "new").write_text("2")
    assert [file.name for file in folder.iterdir()] == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def rows(tmp_path, name, content, format):
    path = tmp_path / name
    path.write_bytes(content)
    return [row for _, row in store.read_rows(path, format)]


def test_the_three_row_formats_agree(tmp_path):
    wanted = [{"question": "Wer, „du“?", "passage": "a\nb"}, {"question": "2", "passage": "é"}]
    pq.write_table(pa.Table.from_pylist(wanted), tmp_path / "r.parquet")
    csv = 'question,passage\n"Wer, „du“?","a\nb"\n2,é\n'.encode()
    jsonl = '{"question": "Wer, „du“?", "passage": "a\\nb"}\n\n{"question": "2", "passage": "é"}'.encode()
    assert rows(tmp_path, "r.csv", csv, "csv") == wanted
    assert rows(tmp_path, "r.jsonl", jsonl, "jsonl") == wanted
    assert [row for _, row in store.read_rows(tmp_path / "r.parquet", "parquet")] == wanted


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


def test_tables_that_are_not_ours_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "p.parquet")
    with pytest.raises(Mistake, match="column 'source' is missing"):
        store.read_pairs(tmp_path / "p.parquet")
    with pytest.raises(Mistake, match="not found"):
        store.read_pairs(tmp_path / "gone.parquet")


def test_tmx_units_by_language_and_no_entities(tmp_path):
    path = tmp_path / "m.tmx"
    path.write_text(
        '<tmx version="1.4"><body><tu><tuv xml:lang="en"><seg>A <b>cat</b></seg></tuv>'
        '<tuv xml:lang="de-AT"><seg>Eine Katze</seg></tuv></tu></body></tmx>'
    )
    assert [texts for _, texts in store.read_tmx(path)] == [{"en": "A cat", "de": "Eine Katze"}]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(Mistake, match="broken XML"):
        list(store.read_tmx(path))
    path.write_text('<!DOCTYPE t [<!ENTITY a "b">]><tmx/>')
    with pytest.raises(Mistake, match="entities"):
        list(store.read_tmx(path))


def test_a_folders_hash_sees_names_and_bytes(tmp_path):
    (tmp_path / "a").write_text("1")
    before = store.sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = store.sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, store.sha256(tmp_path)}) == 3
