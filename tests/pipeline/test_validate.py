"""Validation of a table in parts: the same verdicts as of one file, whatever the cut, and whatever dies."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_checks import BENCHMARK, HERE, with_quality

from conftest import LANGUAGES, SAMPLE, sample
from hexapla.config_data import Validate
from hexapla.data.validate import rounds
from hexapla.io import cache, hashing, tables
from hexapla.pipeline.validate import validate
from hexapla.schema import PAIR_COLUMNS, QUALITY_COLUMNS, Pair, UserError

# Great Expectations imports modules of the standard library that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")

OUTPUTS = ("quarantine.parquet", "summary.json", "contamination.csv")


def held_out(lang):
    tree = json.loads((SAMPLE / "benchmark" / f"{lang}.json").read_text(encoding="utf-8"))
    return tree["data"][0]["paragraphs"][0]["context"], tree["data"][0]["paragraphs"][0]["qas"][0]["question"]


@pytest.fixture
def rows():
    """Ten ids in four languages, by language, with a fault here and there."""
    found = [
        Pair(row["id"], "sample", lang, row["question"], row["passage"], row["answer"], f"p{row['id']}", "m")
        for lang in ("en", "de", "es", "zh")
        for row in sample(lang)[:10]
    ]
    found[3] = found[3]._replace(answer="nowhere to be found")
    found[12] = found[12]._replace(question="?")
    found[21] = found[20]._replace(id=found[21].id)
    words = held_out("de")[0].split()
    found[14] = found[14]._replace(passage=" ".join([*words[:5], "und", *words[6:]]), answer="")
    found[2] = found[2]._replace(negatives=(held_out("en")[0] + " And more.", found[5].passage))
    return found


def table(folder, rows, cut):
    """The rows as parts of at most `cut` rows, each of one language."""
    rows = list(with_quality(rows))
    for number, lang in enumerate(dict.fromkeys(row[2] for row in rows)):
        mine = [row for row in rows if row[2] == lang]
        for part, at in enumerate(range(0, len(mine), cut)):
            file = folder / f"{number:02d}-{lang}-00-sample-{part:05d}.parquet"
            tables.write_pairs(file, mine[at : at + cut], QUALITY_COLUMNS)
    return folder


def run(folder, pairs, **settings):
    paths = {Path(name).stem: folder / name for name in ("out", "docs", *OUTPUTS)}
    chosen = Validate(**{"min_kept": 0.0, "min_numbers_kept": 0.0, **settings})
    validate(chosen, BENCHMARK, HERE, pairs=pairs, data=SAMPLE, **paths)
    kept = list(tables.stream_pairs(folder / "out"))
    rejected = tables.read_pairs(folder / "quarantine.parquet").to_pylist()
    return kept, {(row["id"], row["lang"]): row["reasons"] for row in rejected}


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_however_the_table_is_cut_its_rows_are_judged_alike(fresh, rows):
    whole = fresh / "whole.parquet"
    tables.write_pairs(whole, with_quality(rows), extra=QUALITY_COLUMNS)
    one = run(fresh / "one", whole)
    many = run(fresh / "many", table(fresh / "pairs", rows, cut=6))
    assert one == many
    ids = [rows[i].id for i in (3, 12, 21, 14)]
    assert many[1].keys() == {(ids[0], lang) for lang in ("en", "de", "es", "zh")} | {
        (ids[1], "de"), (ids[2], "es"), (ids[3], "de"),
    }  # fmt: skip
    assert (many[1][ids[1], "de"], many[1][ids[2], "es"]) == (
        "question length: 1; question script: 0", "no repeated pair",
    )  # fmt: skip
    for name in OUTPUTS:
        assert hashing.sha256(fresh / "one" / name) == hashing.sha256(fresh / "many" / name)


def test_parts_keep_their_names_and_columns(fresh, rows):
    for i in range(10, 15):
        rows[i] = rows[i]._replace(question="")
    pairs = table(fresh / "pairs", rows[:20], cut=5)
    run(fresh, pairs)
    parts = {file.name for file in pairs.iterdir()}
    assert {file.name for file in (fresh / "out").iterdir()} == parts - {"01-de-00-sample-00000.parquet"}
    assert tables.schema(fresh / "out").names == [*PAIR_COLUMNS, *QUALITY_COLUMNS]
    quarantine = tables.schema(fresh / "quarantine.parquet").names
    assert quarantine == [*PAIR_COLUMNS, *QUALITY_COLUMNS, "reasons", "match"]


def test_near_matches_are_dropped_and_listed(fresh, rows):
    kept, rejected = run(fresh, table(fresh / "pairs", rows, cut=10))
    near, row = rows[14], next(row for row in kept if row.id == rows[2].id and row.lang == "en")
    assert rejected[near.id, "de"] == "not in a benchmark: benchmark"
    assert row.negatives == (rows[5].passage,)
    with (fresh / "contamination.csv").open(encoding="utf-8", newline="") as lines:
        listed = list(csv.DictReader(lines))
    assert [(one["id"], one["column"], one["benchmark_language"]) for one in listed] == [
        (rows[2].id, "negatives", "en"), (near.id, "passage", "de"),
    ]  # fmt: skip
    assert held_out("de")[0].startswith(listed[1]["benchmark_text"].rstrip("…"))
    assert 0.8 <= float(listed[1]["overlap"]) < 1
    found = tables.read_pairs(fresh / "quarantine.parquet").to_pylist()
    matches = {row["id"]: row["match"] for row in found if row["match"]}
    assert matches.keys() == {near.id}
    assert matches[near.id].startswith("passage has ")
    summary = cache.read_json(fresh / "summary.json")
    assert (summary["benchmarks"]["benchmark"]["matches"], summary["benchmarks"]["benchmark"]["near"]) == (
        1,
        1,
    )
    assert summary["negatives"]["dropped"]["in a benchmark"] == 1
    assert len(summary["not_seen"]) == 3
    exact = run(fresh / "exact", fresh / "pairs", max_overlap=1.0)[1]
    assert (near.id, "de") not in exact


def test_what_was_judged_is_not_judged_again(fresh, rows, monkeypatch):
    pairs = table(fresh / "pairs", rows[:20], cut=10)
    once = run(fresh / "one", pairs)
    judged = []
    monkeypatch.setattr(rounds, "_save", lambda file, found: judged.append(file))
    assert run(fresh / "two", pairs) == once
    assert not judged
    with pytest.raises(UserError, match="not found"):  # since nothing was saved
        run(fresh / "two", pairs, max_question_chars=900)
    assert len(judged) == len(list(pairs.iterdir()))
    assert hashing.sha256(fresh / "one") == hashing.sha256(fresh / "two")


def test_the_whole_sample_is_kept(fresh):
    rows = [
        Pair(row["id"], "sample", lang, row["question"], row["passage"], row["answer"], f"p{row['id']}", "m")
        for lang in ("en", *(lang for lang in LANGUAGES if lang != "en"))
        for row in sample(lang)
    ]
    kept, rejected = run(fresh, table(fresh / "pairs", rows, cut=1000), min_numbers_kept=0.5)
    assert rejected == {}
    assert kept == rows
    assert len(kept) == 3696


def test_a_part_that_cannot_be_read_is_named_in_one_line(fresh, rows):
    pairs = table(fresh / "pairs", rows[:20], cut=10)
    broken = sorted(pairs.iterdir())[1]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60] + bytes(200) + whole[260:])  # its end, with the columns, is as it was
    with pytest.raises(UserError) as caught:
        run(fresh, pairs)
    assert str(caught.value).startswith(f"{broken}: not a readable Parquet file")
    assert "\n" not in str(caught.value)
    broken.write_bytes(whole[:60])
    with pytest.raises(UserError, match=f"{broken}: not a readable Parquet file"):
        run(fresh, pairs)
    assert not (fresh / "summary.json").exists()


# --- the second round ----------------------------------------------------------------------------

ids = st.sampled_from(["a", "b", "c", None])
drawn_rows = st.lists(
    st.tuples(ids, st.sampled_from(["en", "de"]), st.sampled_from("xy"), st.booleans()), max_size=12
)


def related(drawn, room):
    keys = rounds.Keys(
        hashing.digests([row[0] or "" for row in drawn]),
        hashing.digests([f"{row[0]} {row[1]}" for row in drawn]),
        hashing.digests([f"{row[1]} {row[2]}" for row in drawn]),
        english=np.array([row[1] == "en" for row in drawn], bool),
        named=np.array([row[0] is not None for row in drawn], bool),
        failed=np.array([row[3] or row[0] is None for row in drawn], bool),
    )
    return keys, rounds.relate(keys, room)


@given(drawn_rows)
def test_what_is_kept_is_aligned_and_without_repeats(tmp_path_factory, drawn):
    keys, found = related(drawn, tmp_path_factory.mktemp("room"))
    kept = np.flatnonzero(~keys.failed & ~found.failed).tolist()
    english = {drawn[i][0] for i in kept if drawn[i][1] == "en"}
    assert all(drawn[i][0] in english for i in kept)
    assert len({drawn[i][1:3] for i in kept}) == len(kept)
    twins = [row[:2] for row in drawn]
    assert all(twins.count(drawn[i][:2]) == 1 for i in kept)
    # Nothing goes without need: what was dropped here has a twin, lacks its English, or its text is kept.
    for i in set(range(len(drawn))) - set(kept) - set(np.flatnonzero(keys.failed).tolist()):
        texts = {drawn[j][1:3] for j in kept}
        assert twins.count(drawn[i][:2]) > 1 or drawn[i][0] not in english or drawn[i][1:3] in texts


def test_the_first_of_a_repeated_pair_stays(tmp_path):
    drawn = [(key, "en", text, False) for key, text in ("ax", "bx", "cy")]
    assert related(drawn, tmp_path)[1].seen_before.tolist() == [False, True, False]
    drawn[0] = (*drawn[0][:3], True)
    assert related(drawn, tmp_path)[1].seen_before.tolist() == [False, False, False]


# --- killed at any moment ------------------------------------------------------------------------

KILLED = """
import multiprocessing, os, random, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import great_expectations, pandas, pyarrow.parquet
import test_validate

def run(name, cache):
    os.environ["HEXAPLA_CACHE"] = str(folder / cache)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    test_validate.run(folder / name, folder / "pairs")

def begin(*arguments):
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments)
    process.start()
    return process

folder, rng, kills = Path(sys.argv[2]), random.Random(11), 0
began = time.monotonic()
whole = begin("one", "undisturbed")
whole.join()
seconds = time.monotonic() - began
while kills < 6 and not whole.exitcode:
    process = begin("two", "killed")
    process.join(rng.random() * seconds)
    kills += process.is_alive()
    process.kill()
    process.join()
whole = begin("two", "killed")
whole.join()
sys.exit(whole.exitcode)
"""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(fresh, rows):
    """Killed from a process that has imported all there is, since that takes longer than validation."""
    table(fresh / "pairs", rows, cut=5)
    script = fresh / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(script), str(Path(__file__).parent), str(fresh)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("out", "docs", *OUTPUTS):
        assert hashing.sha256(fresh / "two" / name) == hashing.sha256(fresh / "one" / name), name
    assert not list((fresh / "killed" / "validating").iterdir())
