"""Which rows are chosen to be looked at, in which order, and how far tables are read for them."""

import pytest

from hexapla.config import Validate
from hexapla.data.validate import rejected
from hexapla.data.validate.rejected import RowFilter
from hexapla.schema import QUALITY_COLUMNS, Quality, UserError
from rejected_rows import REJECTED, row, write_tables


@pytest.fixture
def tables(tmp_path):
    return write_tables(tmp_path)


def test_kept_rows_nearest_to_a_bound_come_first_by_the_bounds_of_their_language(tables):
    pairs, written = tables
    cosines = {0: 0.51, 1: 0.95, 2: 0.6, 3: None, 4: 0.55}
    rows = [row(i, quality=Quality(cosine=value)) for i, value in cosines.items()]
    rows.append(row(5, lang="zh", quality=Quality(cosine=0.705)))
    kept = written(rows, "kept.parquet", (*QUALITY_COLUMNS, "reasons", "match"))
    validate = Validate(min_cosine=0.5, languages={"zh": {"min_cosine": 0.7}})
    found = rejected.list_borderline(kept, pairs, RowFilter(), 3, "cosine", validate)
    assert [entry.row["id"] for entry in found.rows] == ["s/5", "s/0", "s/4"]
    assert [entry.distance for entry in found.rows] == pytest.approx([0.005, 0.01, 0.05])
    assert found.total == 5, "a row without the measure stands at no bound"
    assert [entry.english["question"] for entry in found.rows] == [
        "Question 5?", "Question 0?", "Question 4?",
    ]  # fmt: skip


def test_both_bounds_of_the_length_ratio_count_and_ties_go_to_the_earlier_row(tables):
    pairs, written = tables
    values = {0: 1.5, 1: 2.9, 2: 0.3, 3: 2.9}
    rows = [row(i, quality=Quality(length_ratio=value)) for i, value in values.items()]
    kept = written(rows, "kept.parquet", (*QUALITY_COLUMNS, "reasons", "match"))
    validate = Validate(min_length_ratio=0.25, max_length_ratio=3.0)
    for limit, ids in ((1, ["s/2"]), (2, ["s/2", "s/1"]), (9, ["s/2", "s/1", "s/3", "s/0"])):
        found = rejected.list_borderline(kept, pairs, RowFilter(), limit, "length_ratio", validate)
        assert [entry.row["id"] for entry in found.rows] == ids


def test_english_is_read_no_further_than_needed(tables, monkeypatch):
    pairs, written = tables
    (pairs / "00-en-00-s-00001.parquet").write_bytes(b"broken")
    path = written(REJECTED[:2])
    found = rejected.list_rejected(path, pairs, RowFilter(), 10)
    assert [entry.english["id"] for entry in found.rows] == ["s/0", "s/1"]
    with pytest.raises(UserError, match=r"00001\.parquet: not a readable Parquet file"):
        rejected.list_rejected(written(REJECTED), pairs, RowFilter(), 10)
