import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexapla.io import tables as parquet
from hexapla.io.tables import write_pairs
from hexapla.schema import PAIR_COLUMNS, Pair, UserError
from hexapla.training import dataset as tables

TEXTS = [name for name in PAIR_COLUMNS if name != "negatives"]


@pytest.fixture(autouse=True)
def mapped(tmp_path, monkeypatch):
    """The folder of mapped tables, in a cache of its own."""
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    # Many chunks, as a large table has them.
    monkeypatch.setattr(parquet, "_ROW_GROUP", 7)
    return tmp_path / "cache" / "tables"


def some(count):
    return [
        Pair(
            f"q{i % 5}", "s", ["de", "zh"][i // 5 % 2], f"question {i} é", "段落" * i, "", f"p{i % 3}", "m",
            tuple(f"no {n}" for n in range(i % 3)),
        )
        for i in range(count)
    ]  # fmt: skip


def written(path, pairs):
    write_pairs(path, pairs)
    return path


@pytest.mark.parametrize("count", [0, 1, 7, 50])
def test_texts_and_negatives_are_those_of_the_rows(tmp_path, count):
    pairs = some(count)
    table = tables.open_table(written(tmp_path / "pairs.parquet", pairs))
    assert table.rows == count
    rows = np.random.default_rng(0).integers(max(count, 1), size=2 * count)
    for name in TEXTS:
        assert table.texts(name, rows) == [getattr(pairs[row], name) for row in rows]
    assert table.negatives(rows) == [list(pairs[row].negatives) for row in rows]


@pytest.mark.parametrize("count", [0, 1, 7, 50])
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_codes_say_what_stands_in_each_row(tmp_path, monkeypatch, count, limit):
    monkeypatch.setattr(tables, "_ARROW_STRING_BYTES", limit)
    pairs = some(count)
    table = tables.open_table(written(tmp_path / "pairs.parquet", pairs))
    for name in TEXTS:
        column = [getattr(pair, name) for pair in pairs]
        codes = table.encode_column(name)
        assert codes.values.dtype == np.int32
        assert [codes.names[code] for code in codes.values] == column
        assert list(codes.names) == list(dict.fromkeys(column))
        assert len(codes.names[:3]) == min(3, len(set(column)))


@given(st.lists(st.text(max_size=5), min_size=1, max_size=40), st.integers(1, 9))
@settings(max_examples=25)
def test_codes_of_any_text_in_any_chunks(texts, chunk):
    pieces = [pa.array(texts[start : start + chunk], pa.string()) for start in range(0, len(texts), chunk)]
    table = tables.PairTable("nowhere", pa.table({"id": pa.chunked_array(pieces)}))
    codes = table.encode_column("id")
    assert [codes.names[code] for code in codes.values] == texts
    assert len(set(codes.names)) == len(codes.names)
    rows = np.arange(len(texts))[::-1]
    assert table.texts("id", rows) == texts[::-1]


def test_a_table_without_negatives_has_none(tmp_path):
    whole = pa.table({name: ["x", "y"] for name in TEXTS})
    pq.write_table(whole, tmp_path / "old.parquet")
    assert tables.open_table(tmp_path / "old.parquet").negatives(np.array([1, 0])) == [[], []]
    some = whole.append_column("negatives", pa.array([None, ["z"]], pa.list_(pa.string())))
    pq.write_table(some, tmp_path / "some.parquet")
    assert tables.open_table(tmp_path / "some.parquet").negatives(np.array([1, 0])) == [["z"], []]


def test_a_folder_of_parts_is_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "PART_ROWS", 20)
    pairs = some(50)
    parquet.write_parts(tmp_path / "pairs", "00-s", pairs)
    table = tables.open_table(tmp_path / "pairs")
    rows = np.arange(50)[::-1]
    assert table.texts("passage", rows) == [pair.passage for pair in pairs[::-1]]
    codes = table.encode_column("id")
    assert [codes.names[code] for code in codes.values] == [pair.id for pair in pairs]


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(UserError, match="absent.parquet: not found"):
        tables.open_table(tmp_path / "absent.parquet")
    broken = written(tmp_path / "broken.parquet", some(20))
    broken.write_bytes(broken.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"broken.parquet: not a readable Parquet file \(.+\)$"):
        tables.open_table(broken)
    rotten = written(tmp_path / "rotten.parquet", some(2000))
    data = bytearray(rotten.read_bytes())
    data[4:900] = bytes(896)
    rotten.write_bytes(bytes(data))
    with pytest.raises(UserError, match="rotten.parquet: not a readable Parquet file"):
        tables.open_table(rotten)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "narrow.parquet")
    with pytest.raises(UserError, match="narrow.parquet: column 'source' is missing"):
        tables.open_table(tmp_path / "narrow.parquet")
    odd = pa.table({name: ["x"] for name in PAIR_COLUMNS})
    pq.write_table(odd, tmp_path / "odd.parquet")
    with pytest.raises(UserError, match="column 'negatives' holds string, wants lists of texts"):
        tables.open_table(tmp_path / "odd.parquet")
    assert not list((tmp_path / "cache").rglob("*.arrow")), "nothing half written stays"


def test_a_mapped_table_is_written_once_for_its_bytes(mapped, tmp_path):
    path = written(tmp_path / "pairs.parquet", some(50))
    tables.open_table(path)
    [file] = mapped.rglob("*.arrow")
    before = file.stat()
    tables.open_table(path.rename(tmp_path / "moved.parquet"))
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    tables.open_table(written(tmp_path / "pairs.parquet", some(49)))
    assert len(list(mapped.rglob("*.arrow"))) == 2
    assert not [path for path in mapped.rglob(".*") if path.suffix != ".lock"], "no scratch files stay"


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:-9] + b"x" * 9]
)
def test_a_broken_mapped_table_is_made_anew(mapped, tmp_path, damage):
    pairs = some(50)
    path = written(tmp_path / "pairs.parquet", pairs)
    tables.open_table(path)
    [file] = mapped.rglob("*.arrow")
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(damage(whole))
    assert tables.open_table(path).texts("question", np.array([49])) == [pairs[49].question]
    assert file.read_bytes() == whole


def test_one_of_another_table_is_made_anew(mapped, tmp_path):
    longer, shorter = (written(tmp_path / f"{count}.parquet", some(count)) for count in (50, 20))
    tables.open_table(longer)
    [file] = mapped.rglob("*.arrow")
    whole = file.read_bytes()
    tables.open_table(shorter)
    [other] = set(mapped.rglob("*.arrow")) - {file}
    file.unlink()
    file.write_bytes(other.read_bytes())
    assert tables.open_table(longer).rows == 50
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_to_is_named(mapped, tmp_path):
    path = written(tmp_path / "pairs.parquet", some(5))
    mapped.parent.write_text("a file where the folder should be")
    with pytest.raises(
        UserError, match=r"\.arrow: can't be written \(.+\); let HEXAPLA_CACHE name another folder"
    ):
        tables.open_table(path)
