import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.io import tables
from hexapla.schema import QUALITY_COLUMNS, Pair, Quality, UserError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


row = st.tuples(*[text] * 8, st.lists(text, max_size=3).map(tuple))


@given(st.lists(row, max_size=20))
def test_pairs_come_back_as_they_went(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pairs") / "p.parquet"
    pairs = [Pair(*row) for row in rows]
    assert tables.write_pairs(path, pairs) == len(pairs)
    assert list(tables.iter_pairs(tables.read_pairs(path))) == pairs


@given(st.lists(row, max_size=20))
def test_a_table_from_before_there_were_negatives_has_none(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pairs") / "p.parquet"
    tables.write_pairs(path, rows)
    pq.write_table(pq.read_table(path).drop_columns("negatives"), path)
    table = tables.read_pairs(path)
    assert table.column_names == list(Pair._fields)
    assert list(tables.iter_pairs(table)) == [Pair(*each[:8]) for each in rows]


def test_nulls_are_no_negatives_or_empty_ones(tmp_path):
    path = tmp_path / "p.parquet"
    tables.write_pairs(path, [(*"abcdefgh", None), (*"abcdefgh", ["i", None])])
    negatives = [pair.negatives for pair in tables.iter_pairs(tables.read_pairs(path))]
    assert negatives == [(), ("i", "")]


def test_further_columns_stand_after_the_negatives(tmp_path):
    path = tmp_path / "p.parquet"
    tables.write_pairs(path, [(*Pair(*"abcdefgh", ("i", "j")), "k")], extra=["reasons"])
    table = tables.read_pairs(path)
    assert table["reasons"].to_pylist() == ["k"]
    assert list(tables.iter_pairs(table)) == [Pair(*"abcdefgh", ("i", "j"))]


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(tmp_path):
    path = tmp_path / "p.parquet"
    tables.write_pairs(path, [Pair(*"abcdefgh")])
    before = path.read_bytes()

    def broken():
        yield Pair(*"hgfedcba")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        tables.write_pairs(path, broken())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_tables_that_are_not_ours_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="column 'source' is missing"):
        tables.read_pairs(tmp_path / "p.parquet")
    tables.write_pairs(tmp_path / "p.parquet", [Pair(*"abcdefgh")])
    table = pq.read_table(tmp_path / "p.parquet")
    for wrong in ("one text", [1, 2]):
        other = table.drop_columns("negatives").append_column("negatives", pa.array([wrong]))
        pq.write_table(other, tmp_path / "p.parquet")
        with pytest.raises(UserError, match="column 'negatives' holds .*, wants lists of texts"):
            tables.read_pairs(tmp_path / "p.parquet")
    with pytest.raises(UserError, match="not found"):
        tables.read_pairs(tmp_path / "gone.parquet")


def test_a_table_may_be_a_folder_of_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PART_ROWS", 4)
    rows = [Pair(f"q{i}", *"bcdefgh", ("n",) * (i % 3)) for i in range(10)]
    files = tables.write_parts(tmp_path / "t", "00-s", rows)
    assert [file.name for file in files] == [f"00-s-{i:05d}.parquet" for i in range(3)]
    assert (
        list(tables.stream_pairs(tmp_path / "t"))
        == rows
        == list(tables.iter_pairs(tables.read_pairs(tmp_path / "t")))
    )
    assert tables.count_rows(tmp_path / "t") == 10
    assert list(tables.stream_pairs(files[1])) == rows[4:8]


def test_parts_of_a_table_that_do_not_fit_are_named(tmp_path):
    tables.write_pairs(tmp_path / "t" / "a.parquet", [Pair(*"abcdefgh")])
    tables.write_pairs(tmp_path / "t" / "b.parquet", [(*Pair(*"abcdefgh"), "x")], extra=["note"])
    with pytest.raises(UserError, match=r"b.parquet: has other columns than a.parquet; run `dvc repro`$"):
        tables.read_pairs(tmp_path / "t")
    (tmp_path / "t" / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"b.parquet: not a readable Parquet file \(.+\)$"):
        list(tables.stream_pairs(tmp_path / "t"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no Parquet files; run `dvc repro`"):
        tables.read_pairs(tmp_path / "empty")


def test_quality_stands_beside_the_row(tmp_path):
    row, none = Pair(*"abcdefgh"), Quality()
    known = Quality(0.75, "de", "de", 0.25, 1.0, False, -0.5)
    tables.write_pairs(tmp_path / "t.parquet", [(*row, *known), (*row, *none)], extra=QUALITY_COLUMNS)
    table = tables.read_pairs(tmp_path / "t.parquet")
    assert list(tables.iter_quality(table)) == [known, none]
    assert list(tables.iter_pairs(table)) == [row, row]
    tables.write_pairs(tmp_path / "old.parquet", [row])
    assert list(tables.iter_quality(tables.read_pairs(tmp_path / "old.parquet"))) == [none]
