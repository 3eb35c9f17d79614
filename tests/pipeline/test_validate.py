"""The stage on real text with planted faults: what it rejects, why, and that nothing else changes the result."""

import csv
import json
import os
import subprocess
import sys

import pytest

from conftest import LANGUAGES, SAMPLE, sample
from hexapla.config import FolderBenchmark
from hexapla.data.validate import passes
from hexapla.io import hashing, tables
from hexapla.schema import PAIR_COLUMNS, QUALITY_COLUMNS, Pair, UserError
from validation_runs import OUTPUTS, Run, with_quality, write_table


def run_rows(folder, rows, **settings):
    return Run(folder, write_table(folder / "pairs.parquet", rows), **settings)


@pytest.fixture
def rows(sample_pairs):
    """Eight ids in English, German and Chinese."""
    ids = [pair.id for pair in sample_pairs[:8]]
    return [pair for pair in sample_pairs if pair.id in ids]


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def place(rows, number, lang):
    return [i for i, pair in enumerate(rows) if pair.lang == lang][number]


def change(rows, number, where, **changes):
    i = place(rows, number, where)
    return [*rows[:i], rows[i]._replace(**changes), *rows[i + 1 :]]


def read_benchmark(lang):
    """Context, first sentence and question of the benchmark's first paragraph."""
    tree = json.loads((SAMPLE / "benchmark" / f"{lang}.json").read_text(encoding="utf-8"))
    paragraph = tree["data"][0]["paragraphs"][0]
    return paragraph["context"], paragraph["sentences"][0], paragraph["qas"][0]["question"]


def widen(text):
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


# --- one planted fault a row -----------------------------------------------------------------------

GERMAN = "Der Hund schläft auf dem Sofa, während draußen der Regen gegen die Fenster schlägt. "
FRENCH = "Le chien dort sur le canapé pendant que la pluie frappe aux fenêtres de la maison. " * 2
FRENCH_QUESTION = "Qui a peint ce tableau célèbre du musée ?"
RUSSIAN = "Кто написал эту картину? "
COPY = "not a copy of the English: 1"
LEAK = "not in a benchmark: benchmark"
QUESTION = read_benchmark("de")[2]
DEFECTS = {
    "empty question": ({"question": " "}, "question not empty"),
    "no question": ({"question": None}, "question not empty"),
    "empty passage": ({"passage": "\n", "answer": ""}, "passage not empty"),
    "short question": ({"question": "Was"}, "question length: 3"),
    "long question": ({"question": GERMAN * 15}, f"question length: {len(GERMAN) * 15 - 1}"),
    "short passage": ({"passage": "Der Hund.", "answer": ""}, "passage length: 9"),
    "long translation": ({"passage": GERMAN * 20, "answer": ""}, "passage length relative to the English: "),
    "question in another script": ({"question": RUSSIAN}, "question script: 0"),
    "passage in another script": ({"passage": RUSSIAN * 8, "answer": ""}, "passage script: 0"),
    "question in another language": ({"question": FRENCH_QUESTION}, "question language: fr"),
    "passage in another language": ({"passage": FRENCH, "answer": ""}, "passage language: fr"),
    "copied question": (lambda english: {"question": english.question.upper() + "!"}, COPY),
    "copied passage": (lambda english: {"passage": english.passage.upper() + "!", "answer": ""}, COPY),
    "answer elsewhere": ({"answer": "Schwarzwälder Kirschtorte"}, "answer in the passage"),
    "benchmark question": ({"question": QUESTION}, LEAK),
    "benchmark question in English": ({"question": read_benchmark("en")[2]}, LEAK),
    "benchmark question, shouted": ({"question": f" {QUESTION.upper()}!! "}, LEAK),
    "benchmark question, wide": ({"question": widen(QUESTION)}, LEAK),
    "benchmark passage": ({"passage": read_benchmark("de")[1].replace(" ", "  "), "answer": ""}, LEAK),
    "no passage_id": ({"passage_id": None}, "passage_id present"),
    "bad language code": ({"lang": "German"}, "language code: German"),
    "no language": ({"lang": None}, "lang present"),
    "no English row": ({"id": "orphan"}, "English row kept"),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory, sample_pairs):
    """One run over a table with every defect, each in the German row of an id of its own."""
    rows, bad = list(sample_pairs), {}
    places = [i for i, pair in enumerate(rows) if pair.lang == "de"]
    for number, (i, (defect, (changes, _))) in enumerate(zip(places, DEFECTS.items(), strict=False)):
        changes = changes(rows[number]) if callable(changes) else changes
        rows[i] = bad[defect] = rows[i]._replace(**changes)
    rows = rows[::2] + rows[1::2]
    return rows, bad, run_rows(tmp_path_factory.mktemp("planted"), rows, language="both")


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_rejects_its_row_with_its_reason(planted, defect):
    _, bad, run = planted
    reasons = run.rejected[bad[defect].id, bad[defect].lang].split("; ")
    assert any(reason.startswith(DEFECTS[defect][1]) for reason in reasons)


def test_planted_defects_reject_no_other_row_and_the_order_stays(planted):
    rows, bad, run = planted
    assert run.kept == [pair for pair in rows if pair not in bad.values()]
    assert len(run.rejected) == len(DEFECTS)
    assert run.summary["benchmarks"]["benchmark"]["matches"] == 5
    entries = run.summary["expectations"]
    assert all(sum(entry["languages"].values()) == entry["rejected"] for entry in entries)


def test_rows_are_compared_with_all_others(tmp_path, rows):
    rows = change(rows, 1, "en", answer="nowhere to be found")
    rows = change(rows, 3, "en", passage=GERMAN * 2, answer="")
    first, twin = rows[place(rows, 0, "de")], rows[place(rows, 5, "de")]
    rows = change(rows, 4, "de", question=first.question.lower(), passage=first.passage + " ", answer="")
    rows.append(twin._replace(passage=rows[place(rows, 6, "de")].passage, answer=""))
    run = run_rows(tmp_path, rows, language="passage")
    ids = [pair.id for pair in rows[:8]]
    assert run.rejected == {
        (ids[1], "en"): "answer in the passage",
        (ids[1], "de"): "English row kept",
        (ids[1], "zh"): "English row kept",
        (ids[3], "en"): "passage language: de",
        (ids[3], "de"): "English row kept",
        (ids[3], "zh"): "English row kept",
        (ids[4], "de"): "no repeated pair",
        (ids[5], "de"): "one row an id and language",
    }
    assert run.summary["rejected"] == 9, "both rows with one id and language"


def test_what_translation_lost_is_read_from_the_table_and_compared_with_the_bounds_of_the_language(
    tmp_path, rows
):
    lost = {
        "copy_share": (0.95, "not a copy of the English: 0.95"),
        "numbers_kept": (0.25, "numbers kept: 0.25"),
        "cosine": (0.125, "meaning kept: 0.125"),
        "length_ratio": (3.5, "passage length relative to the English: 3.5"),
        "passage_language": ("nl", "passage language: nl"),
    }
    table = [list(row) for row in with_quality(rows)]
    for number, (column, (value, _)) in enumerate(lost.items()):
        for lang in ("de", "zh"):
            table[place(rows, number, lang)][[*PAIR_COLUMNS, *QUALITY_COLUMNS].index(column)] = value
    wide = {
        "max_copy_share": 1.0, "min_numbers_kept": 0.0, "min_cosine": 0.0, "max_length_ratio": 4.0,
    }  # fmt: skip
    settings = {"language": "passage", "min_numbers_kept": 0.5, "languages": {"zh": wide}}
    run = run_rows(tmp_path, [tuple(row) for row in table], **settings)
    ids = [rows[place(rows, number, "de")].id for number in range(len(lost))]
    expected = {(name, "de"): reason for name, (_, reason) in zip(ids, lost.values(), strict=True)}
    assert run.rejected == {**expected, (ids[4], "zh"): "passage language: nl"}
    counts = {one["name"]: one for one in run.summary["expectations"] if one["rejected"]}
    assert counts["passage language"]["languages"] == {"de": 1, "en": 0, "zh": 1}
    assert counts["meaning kept"]["languages"] == {"de": 1, "en": 0, "zh": 0}
    assert counts["passage language"]["sources"] == {"sample": 2}


def test_a_source_has_bounds_of_its_own(tmp_path, rows):
    planted = [row._replace(source="other" if row.id == rows[0].id else "sample") for row in rows]
    run = run_rows(tmp_path, planted, sources={"other": {"min_question_chars": 500}}, min_question_chars=1)
    assert {(row.id, row.lang) for row in rows if row.id == rows[0].id} == set(run.rejected)
    assert run.summary["sources"] == {"other": {"rows": 3, "kept": 0}, "sample": {"rows": 21, "kept": 21}}


def test_settings_turn_checks_off(tmp_path, rows):
    rows = change(rows, 1, "de", answer="Schwarzwälder Kirschtorte")
    rows = change(rows, 2, "de", passage=FRENCH, answer="")
    rows = change(rows, 3, "de", question="Was")
    run = run_rows(tmp_path / "off", rows, answer_in_passage=False, language="off", min_question_chars=3)
    assert run.rejected == {}
    assert run.summary["not_checked"] == {"script": [], "language": ["de", "en", "zh"]}


def test_languages_that_cannot_be_checked_are_named_and_questions_are_not_identified_unasked(tmp_path, rows):
    renamed = [pair._replace(lang="tlh") if pair.lang == "de" else pair for pair in rows]
    run = run_rows(tmp_path, change(renamed, 3, "en", question=FRENCH_QUESTION), language="passage")
    assert run.rejected == {}
    assert run.summary["not_checked"] == {"script": ["tlh"], "language": ["tlh"]}


# --- what the stage refuses ------------------------------------------------------------------------


def test_too_few_rows_fail_in_one_line_and_leave_the_evidence(tmp_path, rows):
    run_rows(tmp_path, rows)
    assert (tmp_path / "out").is_dir()
    planted = [pair._replace(answer="not there") if pair.lang == "de" else pair for pair in rows]
    with pytest.raises(UserError) as caught:
        run_rows(tmp_path, planted, min_kept=0.9)
    message = str(caught.value)
    assert "kept 16 of 24 rows" in message
    assert "validate.min_kept is 0.9" in message
    assert message.endswith("answer in the passage 8")
    assert "\n" not in message
    assert not (tmp_path / "out").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["rejected"] == 8
    assert tables.read_pairs(tmp_path / "quarantine.parquet").num_rows == 8
    assert (tmp_path / "docs" / "index.html").is_file()


def test_nothing_left_fails_even_when_any_share_would_do(tmp_path, rows):
    with pytest.raises(UserError, match="nothing is left"):
        run_rows(tmp_path, [pair for pair in rows if pair.lang != "en"])
    with pytest.raises(UserError, match="no rows"):
        run_rows(tmp_path, [])


def test_a_benchmark_that_is_not_there_is_named(tmp_path, rows):
    with pytest.raises(UserError, match="nowhere: no such benchmark folder"):
        run_rows(tmp_path, rows, benchmarks=(FolderBenchmark(name="nowhere", path="gone"),))
    assert not (tmp_path / "summary.json").exists()


def test_other_columns_than_a_parallel_tables_are_refused(tmp_path, rows):
    columns = ", ".join((*PAIR_COLUMNS, *QUALITY_COLUMNS))
    wide = [(*row, "x") for row in with_quality(rows)]
    tables.write_pairs(tmp_path / "wide.parquet", wide, extra=[*QUALITY_COLUMNS, "note"])
    with pytest.raises(
        UserError, match=f"wide.parquet: its columns are not exactly {columns}; run `dvc repro`"
    ):
        Run(tmp_path, tmp_path / "wide.parquet")
    tables.write_pairs(tmp_path / "old.parquet", rows)
    with pytest.raises(UserError, match=r"old.parquet: column 'length_ratio' is missing; run `dvc repro`"):
        Run(tmp_path, tmp_path / "old.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.parquet", "wide.parquet"]


def test_a_part_that_cannot_be_read_is_named_in_one_line(fresh, rows):
    pairs = write_table(fresh / "pairs", rows[:16], cut=8)
    broken = sorted(pairs.iterdir())[1]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60] + bytes(200) + whole[260:])  # its end, with the columns, is as it was
    with pytest.raises(UserError) as caught:
        Run(fresh, pairs)
    assert str(caught.value).startswith(f"{broken}: not a readable Parquet file")
    assert "\n" not in str(caught.value)
    broken.write_bytes(whole[:60])
    with pytest.raises(UserError, match=f"{broken}: not a readable Parquet file"):
        Run(fresh, pairs)
    assert not (fresh / "summary.json").exists()


# --- a table in parts ------------------------------------------------------------------------------


@pytest.fixture
def faulty():
    """Ten ids in four languages, by language, with a fault here and there."""
    rows = [
        Pair(row["id"], "sample", lang, row["question"], row["passage"], row["answer"], f"p{row['id']}", "m")
        for lang in ("en", "de", "es", "zh")
        for row in sample(lang)[:10]
    ]
    rows[3] = rows[3]._replace(answer="nowhere to be found")
    rows[12] = rows[12]._replace(question="?")
    rows[21] = rows[20]._replace(id=rows[21].id)
    words = read_benchmark("de")[0].split()
    rows[14] = rows[14]._replace(passage=" ".join([*words[:5], "und", *words[6:]]), answer="")
    rows[2] = rows[2]._replace(negatives=(read_benchmark("en")[0] + " And more.", rows[5].passage))
    rows[5] = rows[5]._replace(negatives=(rows[6].passage, rows[5].passage, "", rows[7].passage))
    return rows


def test_however_the_table_is_cut_its_rows_are_judged_alike(fresh, faulty):
    one = Run(fresh / "one", write_table(fresh / "whole.parquet", faulty))
    many = Run(fresh / "many", write_table(fresh / "pairs", faulty, cut=6))
    assert one.kept == many.kept
    assert one.rejected == many.rejected
    ids = [faulty[i].id for i in (3, 12, 21, 14)]
    assert many.rejected.keys() == {(ids[0], lang) for lang in ("en", "de", "es", "zh")} | {
        (ids[1], "de"), (ids[2], "es"), (ids[3], "de"),
    }  # fmt: skip
    assert (many.rejected[ids[1], "de"], many.rejected[ids[2], "es"]) == (
        "question length: 1; question script: 0", "no repeated pair",
    )  # fmt: skip
    for name in (*OUTPUTS, "docs"):
        assert hashing.sha256(fresh / "one" / name) == hashing.sha256(fresh / "many" / name)


def test_parts_keep_their_names_and_columns(fresh, rows):
    for i in range(12, 16):
        rows[i] = rows[i]._replace(question="")
    pairs = write_table(fresh / "pairs", rows[:16], cut=4)
    Run(fresh, pairs)
    parts = {file.name for file in pairs.iterdir()}
    assert {file.name for file in (fresh / "out").glob("*.parquet")} == parts - {
        "01-de-00-sample-00001.parquet"
    }
    assert tables.schema(fresh / "out").names == [*PAIR_COLUMNS, *QUALITY_COLUMNS]
    quarantine = tables.schema(fresh / "quarantine.parquet").names
    assert quarantine == [*PAIR_COLUMNS, *QUALITY_COLUMNS, "reasons", "match"]


def test_near_matches_are_dropped_and_listed(fresh, faulty):
    run = Run(fresh, write_table(fresh / "pairs", faulty, cut=10))
    near, kept = faulty[14], {row.id: row for row in run.kept if row.lang == "en"}
    assert run.rejected[near.id, "de"] == "not in a benchmark: benchmark"
    assert kept[faulty[2].id].negatives == (faulty[5].passage,)
    assert kept[faulty[5].id].negatives == (faulty[6].passage, faulty[7].passage)
    with (fresh / "contamination.csv").open(encoding="utf-8", newline="") as lines:
        listed = list(csv.DictReader(lines))
    assert [(one["id"], one["column"], one["benchmark_language"]) for one in listed] == [
        (faulty[2].id, "negatives", "en"), (near.id, "passage", "de"),
    ]  # fmt: skip
    assert read_benchmark("de")[0].startswith(listed[1]["benchmark_text"].rstrip("…"))
    assert 0.8 <= float(listed[1]["overlap"]) < 1
    matches = {row["id"]: row["match"] for row in run.quarantine if row["match"]}
    assert matches.keys() == {near.id}
    assert matches[near.id].startswith("passage has ")
    counts = run.summary["benchmarks"]["benchmark"]
    assert (counts["matches"], counts["near"]) == (1, 1)
    assert run.summary["negatives"] == {
        "kept": 3,
        "dropped": {
            "empty": 1, "in a benchmark": 1, "the passage itself": 1, "holds the answer": 0, "length": 0,
        },
    }  # fmt: skip
    assert len(run.summary["not_seen"]) == 3
    exact = Run(fresh / "exact", fresh / "pairs", max_overlap=1.0)
    assert (near.id, "de") not in exact.rejected


def test_what_was_checked_is_not_checked_again(fresh, rows, monkeypatch):
    pairs = write_table(fresh / "pairs", rows[:16], cut=8)
    once = Run(fresh / "one", pairs)
    checked = []
    monkeypatch.setattr(passes, "_save", lambda file, found: checked.append(file))
    assert Run(fresh / "two", pairs).kept == once.kept
    assert not checked
    with pytest.raises(UserError, match="not found"):  # since nothing was saved
        Run(fresh / "two", pairs, max_question_chars=900)
    assert len(checked) == len(list(pairs.iterdir()))
    assert hashing.sha256(fresh / "one") == hashing.sha256(fresh / "two")


def test_the_whole_sample_is_kept(fresh):
    rows = [
        Pair(row["id"], "sample", lang, row["question"], row["passage"], row["answer"], f"p{row['id']}", "m")
        for lang in ("en", *(lang for lang in LANGUAGES if lang != "en"))
        for row in sample(lang)
    ]
    pairs = write_table(fresh / "pairs", rows, cut=1000)
    run = Run(fresh, pairs, min_kept=1.0, min_numbers_kept=0.5, language="passage")
    assert run.rejected == {}
    assert run.kept == rows
    summary = run.summary
    counts = tuple(summary[name] for name in ("rows", "kept", "rejected", "kept_share"))
    assert counts == (3696, 3696, 0, 1.0)
    assert summary["languages"] == {lang: {"rows": 336, "kept": 336} for lang in sorted(LANGUAGES)}
    assert summary["not_checked"] == {"script": [], "language": []}
    assert all(entry["rejected"] == 0 for entry in summary["expectations"])
    assert summary["benchmarks"]["benchmark"] == {"texts": 1848, "matches": 0, "near": 0}


def test_the_page_shows_users_texts_as_text_and_loads_nothing(fresh, rows):
    markup = "<script>alert(1)</script> $id {lang} {{ 1 + 1 }} "
    rows = change(rows, 2, "de", passage_id=None, source="<img src=x>")
    changes = {"question": f"{markup}?", "passage": markup * 3, "answer": "", "id": "<b>$id</b>"}
    run = run_rows(fresh, change(rows, 3, "de", lang="<i>de</i>", **changes))
    assert [row["lang"] for row in run.quarantine] == ["de", "<i>de</i>"]
    page = (fresh / "docs" / "index.html").read_text(encoding="utf-8")
    for tag in ("<script", "<b>$id", "<i>de", "<img", "http:", "https:", "url(", "<link"):
        assert tag not in page
    for text in ("&lt;i&gt;de&lt;/i&gt;", "&lt;b&gt;$id&lt;/b&gt;", "&lt;img src=x&gt;"):
        assert text in page


# --- killed at any moment --------------------------------------------------------------------------

KILLED = """
import multiprocessing, os, random, sys, time
from pathlib import Path
import validation_runs

def run(name, cache):
    os.environ["HEXAPLA_CACHE"] = str(folder / cache)
    validation_runs.Run(folder / name, folder / "pairs")

def run_silently(*arguments):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    run(*arguments)

def begin(*arguments):
    process = multiprocessing.get_context("fork").Process(target=run_silently, args=arguments)
    process.start()
    return process

folder, rng, kills = Path(sys.argv[1]), random.Random(11), 0
run("one", "undisturbed")  # here, so that the others inherit what has to be imported and set up
began = time.monotonic()
whole = begin("timed", "timed")
whole.join()
seconds = time.monotonic() - began
while kills < 4 and not whole.exitcode:
    process = begin("two", "killed")
    process.join(rng.random() * seconds)
    kills += process.is_alive()
    process.kill()
    process.join()
whole = begin("two", "killed")
whole.join()
sys.exit(whole.exitcode)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(fresh, faulty):
    """It is killed as the child of a process that is set up, because that takes longer than validation."""
    write_table(fresh / "pairs", faulty[:20], cut=5)
    script = fresh / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(script), str(fresh)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("out", "docs", *OUTPUTS):
        assert hashing.sha256(fresh / "two" / name) == hashing.sha256(fresh / "one" / name), name
    left = {file.name for file in (fresh / "killed" / "validating").iterdir()}
    assert left <= {"CACHEDIR.TAG"}, "scratch of killed processes is removed"
