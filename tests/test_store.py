import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla import store
from hexapla.records import Mistake, Pair

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


row = st.tuples(*[text] * 8, st.lists(text, max_size=3).map(tuple))


@given(st.lists(row, max_size=20))
def test_pairs_come_back_as_they_went(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pairs") / "p.parquet"
    pairs = [Pair(*row) for row in rows]
    assert store.write_pairs(path, pairs) == len(pairs)
    assert list(store.iter_pairs(store.read_pairs(path))) == pairs


@given(st.lists(row, max_size=20))
def test_a_table_from_before_there_were_negatives_has_none(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pairs") / "p.parquet"
    store.write_pairs(path, rows)
    pq.write_table(pq.read_table(path).drop_columns("negatives"), path)
    table = store.read_pairs(path)
    assert table.column_names == list(Pair._fields)
    assert list(store.iter_pairs(table)) == [Pair(*each[:8]) for each in rows]


def test_nulls_are_no_negatives_or_empty_ones(tmp_path):
    path = tmp_path / "p.parquet"
    store.write_pairs(path, [(*"abcdefgh", None), (*"abcdefgh", ["i", None])])
    negatives = [pair.negatives for pair in store.iter_pairs(store.read_pairs(path))]
    assert negatives == [(), ("i", "")]


def test_further_columns_stand_after_the_negatives(tmp_path):
    path = tmp_path / "p.parquet"
    store.write_pairs(path, [(*Pair(*"abcdefgh", ("i", "j")), "k")], extra=["reasons"])
    table = store.read_pairs(path)
    assert table["reasons"].to_pylist() == ["k"]
    assert list(store.iter_pairs(table)) == [Pair(*"abcdefgh", ("i", "j"))]


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


def test_tables_that_are_not_ours_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "p.parquet")
    with pytest.raises(Mistake, match="column 'source' is missing"):
        store.read_pairs(tmp_path / "p.parquet")
    store.write_pairs(tmp_path / "p.parquet", [Pair(*"abcdefgh")])
    table = pq.read_table(tmp_path / "p.parquet")
    for wrong in ("one text", [1, 2]):
        other = table.drop_columns("negatives").append_column("negatives", pa.array([wrong]))
        pq.write_table(other, tmp_path / "p.parquet")
        with pytest.raises(Mistake, match="column 'negatives' holds .*, wants lists of texts"):
            store.read_pairs(tmp_path / "p.parquet")
    with pytest.raises(Mistake, match="not found"):
        store.read_pairs(tmp_path / "gone.parquet")


def test_a_folders_hash_sees_names_and_bytes(tmp_path):
    (tmp_path / "a").write_text("1")
    before = store.sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = store.sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, store.sha256(tmp_path)}) == 3
