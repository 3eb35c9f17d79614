"""What a row means by itself and among all others, and the result that the cache may keep."""

import hashlib
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conftest import SAMPLE
from hexapla.config import Validate
from hexapla.data.validate import contamination, passes
from hexapla.io import hashing, tables
from hexapla.schema import QUALITY_COLUMNS, Pair, Quality

# --- the row pass ----------------------------------------------------------------------------------


def test_the_cached_result_changes_only_with_its_format(tmp_path):
    """When this fails and the new result is right, raise `passes.FORMAT`, or `contamination.FORMAT`."""
    tree = json.loads((SAMPLE / "benchmark" / "de.json").read_text(encoding="utf-8"))
    leak = tree["data"][0]["paragraphs"][0]["context"]
    dog = "Der Hund schläft auf dem Sofa."
    rows = [
        Pair("a", "s", "de", "Wer schläft auf dem Sofa?", f"Kurz: {leak}", "", "p1", "m", (leak, "Nein")),
        Pair("b", "s", "de", "Was?", dog, "Katze", "p2", "m", ("Der Hund!",)),
        Pair("c", "t", "zh", "谁在沙发上睡觉?", "狗在沙发上睡觉,外面下着雨。狗喜欢沙发。", "狗", "p3", "m"),
        Pair("d", "t", "??", "", None, None, None, None, None),
    ]
    quality = Quality(0.9, "de", "de", 0.1, 1.0, True, 0.5)
    file = tmp_path / "part.parquet"
    tables.write_pairs(file, [(*row, *quality) for row in rows], extra=QUALITY_COLUMNS)
    texts = contamination.collect_texts({"benchmark": SAMPLE / "benchmark"})
    columns, groups, matches = passes.check_part(str(file), str(texts), Validate())
    plain = {
        name: [each.tolist() for each in column]
        if isinstance(column, tables.Ragged)
        else list(map(str, column))
        for name, column in columns.items()
    }
    whole = json.dumps([passes.FORMAT, contamination.FORMAT, plain, groups, matches], sort_keys=True)
    assert hashlib.sha256(whole.encode()).hexdigest()[:16] == "22ae5ec1a5eec6da"


@given(
    st.lists(st.tuples(st.sampled_from(["de", "zh-Hant", "German", "", None]), st.sampled_from(["s", None])))
)
def test_groups_are_those_of_language_and_source_and_broken_codes_are_one(drawn):
    groups = passes.group_rows([lang for lang, _ in drawn], [source for _, source in drawn])
    found = {row: group for group, rows in groups.items() for row in rows.tolist()}
    assert found == {
        row: (lang if lang in ("de", "zh-Hant") else "", source or "")
        for row, (lang, source) in enumerate(drawn)
    }
    assert all((np.diff(rows) > 0).all() for rows in groups.values())


# --- the table pass --------------------------------------------------------------------------------

ids = st.sampled_from(["a", "b", "c", None])
drawn_rows = st.lists(
    st.tuples(ids, st.sampled_from(["en", "de"]), st.sampled_from("xy"), st.booleans()), max_size=12
)


def relate(drawn, folder):
    keys = passes.RowKeys(
        hashing.digests([row[0] or "" for row in drawn]),
        hashing.digests([f"{row[0]} {row[1]}" for row in drawn]),
        hashing.digests([f"{row[1]} {row[2]}" for row in drawn]),
        english=np.array([row[1] == "en" for row in drawn], bool),
        named=np.array([row[0] is not None for row in drawn], bool),
        failed=np.array([row[3] or row[0] is None for row in drawn], bool),
    )
    return keys, passes.relate_rows(keys, folder)


@given(drawn_rows)
def test_what_is_kept_is_aligned_and_without_repeats(tmp_path_factory, drawn):
    keys, relations = relate(drawn, tmp_path_factory.mktemp("keys"))
    kept = np.flatnonzero(~keys.failed & ~relations.failed).tolist()
    english = {drawn[i][0] for i in kept if drawn[i][1] == "en"}
    assert all(drawn[i][0] in english for i in kept)
    assert len({drawn[i][1:3] for i in kept}) == len(kept)
    twins = [row[:2] for row in drawn]
    assert all(twins.count(drawn[i][:2]) == 1 for i in kept)
    # Nothing is rejected without need: such a row has a twin, lacks its English row, or its text is kept.
    for i in set(range(len(drawn))) - set(kept) - set(np.flatnonzero(keys.failed).tolist()):
        texts = {drawn[j][1:3] for j in kept}
        assert twins.count(drawn[i][:2]) > 1 or drawn[i][0] not in english or drawn[i][1:3] in texts


def test_the_first_of_a_repeated_pair_stays(tmp_path):
    drawn = [(key, "en", text, False) for key, text in ("ax", "bx", "cy")]
    assert relate(drawn, tmp_path)[1].seen_before.tolist() == [False, True, False]
    drawn[0] = (*drawn[0][:3], True)
    assert relate(drawn, tmp_path)[1].seen_before.tolist() == [False, False, False]
