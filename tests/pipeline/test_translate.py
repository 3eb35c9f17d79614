"""The stage gives the same table however often it was stopped, and does nothing twice."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import yaml

import interrupted
from conftest import LANGUAGES, ROOT, SAMPLE, sample
from hexapla import tracking
from hexapla.cli import app
from hexapla.config import Executor, TranslateFromMemory
from hexapla.data.translate import engines, quality, shards
from hexapla.data.translate.quality import CosineSettings
from hexapla.io import cache, hashing
from hexapla.io import tables as parquet
from hexapla.pipeline import translate as stage
from hexapla.schema import ORIGINAL, QUALITY_COLUMNS, Pair, Quality, UserError
from interrupted import Shouting, pairs

TEXTS = ("question", "passage", "answer")
HERE = Executor(workers=1, retries=0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, request) -> None:
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    if "tracking_store" not in request.fixturenames:
        run = tracking.run
        monkeypatch.setattr(tracking, "run", lambda name: run(name, silent=True))


@pytest.fixture
def engine(monkeypatch) -> Shouting:
    """Takes the place of every engine; tells what it was asked for."""
    made = Shouting()
    monkeypatch.setattr(engines, "build_engine", lambda *_: made)
    monkeypatch.setattr(engines, "check_engines", lambda *_: None)
    return made


def parts(folder: Path, *tables: list[Pair]) -> Path:
    for number, rows in enumerate(tables):
        parquet.write_pairs(folder / f"{number:02d}-source-00000.parquet", rows)
    return folder


def translate(tmp_path: Path, raw: Path, out: str = "out", **changes: object) -> dict:
    """Runs the stage on a folder of parts; its summary."""
    settings = TranslateFromMemory(**{"languages": ("de",), "cosine": "", "shard_texts": 4} | changes)
    stage.translate(
        settings, HERE, pairs=raw, sample=SAMPLE, out=tmp_path / out, summary=tmp_path / f"{out}.json"
    )
    return cache.read_json(tmp_path / f"{out}.json")


def read(folder: Path) -> list[tuple[Pair, Quality]]:
    table = parquet.read_pairs(folder)
    return list(zip(parquet.iter_pairs(table), parquet.iter_quality(table), strict=True))


# --- what is written -----------------------------------------------------------------------------


def test_the_table_is_a_folder_of_parts_of_one_language_each(tmp_path, engine) -> None:
    raw = parts(tmp_path / "raw", pairs(3), pairs(2, start=3))
    summary = translate(tmp_path, raw, languages=("de", "el"))
    files = parquet.table_files(tmp_path / "out")
    assert [file.name for file in files] == [
        f"{number:02d}-{lang}-{part:02d}-source-00000.parquet"
        for number, lang in enumerate(("en", "de", "el"))
        for part in (0, 1)
    ]
    assert parquet.schema(tmp_path / "out").names == [*Pair._fields, *QUALITY_COLUMNS]
    found = read(tmp_path / "out")
    english = pairs(5)
    assert [row for row, _ in found[:5]] == english
    assert [row for row, _ in found[5:10]] == [
        each._replace(
            lang="de", engine="shouting", question=each.question.upper(), passage=each.passage.upper(),
            answer=each.answer.upper(),
        )
        for each in english
    ]  # fmt: skip
    assert {quality.copy_share for _, quality in found[5:]} == {1.0}
    assert {quality.length_ratio for _, quality in found} == {None, 1.0}
    assert summary["languages"]["de"] == {
        "translated": 5, "original": 0, "missing": 0, "answers_lost": 0, "negatives_lost": 0,
    }  # fmt: skip
    assert (summary["engine"], summary["pairs"], summary["rows"]) == ("shouting", 5, 15)
    assert summary["quality"]["el"]["copy_share"] == {"counted": 5, "quantiles": [1.0] * 5}
    assert summary["quality"]["en"].keys() == {"question_language", "passage_language"}


def test_rows_that_came_parallel_stay_and_are_measured(tmp_path, engine) -> None:
    first, second = pairs(2)
    own = first._replace(
        lang="de", question="Wer?", passage="Der Hund.", answer="", passage_id=first.passage_id
    )
    other = first._replace(lang="fr", question="Qui ?", passage="Le chien.")
    summary = translate(tmp_path, parts(tmp_path / "raw", [first, own, other, second]))
    found = [(row, quality) for row, quality in read(tmp_path / "out") if row.lang == "de"]
    assert found[0][0] == own
    assert found[0][1].answer_kept is False
    assert found[0][1].length_ratio == len(own.passage) / len(first.passage)
    assert found[1][0].engine == "shouting"
    assert first.question not in engine.asked
    assert summary["languages"]["de"]["original"] == 1
    assert summary["not_wanted"] == {"fr": 1}
    assert {row.lang for row, _ in read(tmp_path / "out")} == {"en", "de"}


def test_a_language_that_came_whole_needs_no_engine(tmp_path) -> None:
    rows = [row._replace(lang=lang) for row in pairs(2) for lang in ("en", "fr")]
    summary = translate(tmp_path, parts(tmp_path / "raw", rows), languages=("fr",))
    assert (summary["engine"], summary["rows"]) == ("", 4)
    # One row less: the memory, which knows no French, is asked for it all the same, and has none.
    summary = translate(tmp_path, parts(tmp_path / "raw", rows[:-1]), languages=("fr",))
    assert summary["languages"]["fr"]["missing"] == 1
    with pytest.raises(UserError, match="the translation memory has no 'fr'"):
        translate(tmp_path, parts(tmp_path / "raw", rows[::2]), languages=("fr",))


def test_vectors_are_compared_with_the_english_rows_own(tmp_path, tiny_folder, monkeypatch, engine) -> None:
    monkeypatch.setattr(quality, "PAIRS", 2)
    first, *rest = pairs(5)
    own = first._replace(lang="de", passage=rest[-1].passage)
    copies = [row._replace(lang="de") for row in rest]
    rows = [first, own, *(row for both in zip(rest, copies, strict=True) for row in both)]
    translate(tmp_path, parts(tmp_path / "raw", rows), cosine=str(tiny_folder))
    cosines = [quality.cosine for row, quality in read(tmp_path / "out") if row.lang == "de"]
    assert cosines[1:] == [1.0] * 4
    assert -1 <= cosines[0] < 1
    assert all(quality.cosine is None for row, quality in read(tmp_path / "out") if row.lang == "en")


def test_rows_are_compared_anew_in_another_precision(tmp_path, tiny_folder, monkeypatch, engine) -> None:
    raw = parts(tmp_path / "raw", pairs(3))
    kept = []
    for precision in ("fp32", "bf16", "fp32"):
        monkeypatch.setattr(
            quality, "choose_settings", lambda *cosine, made=precision: CosineSettings(*cosine, made)
        )
        translate(tmp_path, raw, cosine=str(tiny_folder))
        files = [file for file in (tmp_path / "cache" / "quality").rglob("*.*") if file.stem != "CACHEDIR"]
        kept.append(Counter(file.suffix for file in files))
    assert kept == [{".parquet": 2, ".npy": 1}, {".parquet": 4, ".npy": 2}, {".parquet": 4, ".npy": 2}]


def test_languages_that_want_every_text_have_one_plan(tmp_path, monkeypatch, engine) -> None:
    first, *rest = pairs(4)
    raw = parts(tmp_path / "raw", [first, first._replace(lang="de"), *rest])
    planned, plan = [], shards.plan_shards
    monkeypatch.setattr(
        shards, "plan_shards", lambda survey, lang, size: planned.append(lang) or plan(survey, lang, size)
    )
    translate(tmp_path, raw, languages=("el", "de", "es", "fr"))
    assert planned == ["el", "de"]
    monkeypatch.setattr(shards, "plan_shards", plan)
    asked = len(engine.asked)
    for lang in ("es", "de"):
        translate(tmp_path, raw, out=lang, languages=(lang,))
        mine = [file for file in parquet.table_files(tmp_path / "out") if f"-{lang}-" in file.name]
        assert [hashing.sha256(file) for file in mine] == [
            hashing.sha256(file)
            for file in parquet.table_files(tmp_path / lang)
            if file.name.startswith("01-")
        ]
    assert len(engine.asked) == asked


def test_a_part_is_read_a_few_times_whatever_the_number_of_languages(
    tmp_path, tiny_folder, monkeypatch, engine
) -> None:
    reads: Counter[str] = Counter()
    stream = parquet.stream_pairs

    def count(path: Path):
        reads[path.name[:2]] += 1
        return stream(path)

    monkeypatch.setattr(parquet, "stream_pairs", count)
    first, *rest = pairs(4)
    rows = [first, first._replace(lang="de"), *rest]
    one, two = parts(tmp_path / "one", rows), parts(tmp_path / "two", rows, pairs(3, start=4))
    translate(tmp_path, one, languages=("de", "el", "es"), cosine=str(tiny_folder))
    assert reads == {"00": 1}
    for languages in (("fr",), ("ru", "th", "tr", "vi"), ("ru", "th", "tr", "vi")):
        reads.clear()
        done = len(engine.asked)
        translate(tmp_path, two, languages=languages, cosine=str(tiny_folder))
        # The survey, what is kept, what is missing; the same for quality, and the English passages; the table.
        most = 7 if len(engine.asked) > done else 4
        assert max(reads.values()) <= most
        assert reads.keys() == {"00", "01"}


# --- nothing twice -------------------------------------------------------------------------------


def test_a_language_or_a_source_more_costs_only_what_is_new(tmp_path, engine) -> None:
    raw = parts(tmp_path / "raw", pairs(6))
    translate(tmp_path, raw)
    texts = {text for row in pairs(6) for text in row[3:6]}
    assert sorted(engine.asked) == sorted(texts)
    before = hashing.sha256(tmp_path / "out")
    translate(tmp_path, raw)
    assert len(engine.asked) == len(texts)
    assert hashing.sha256(tmp_path / "out") == before
    translate(tmp_path, raw, languages=("es", "de"))
    assert sorted(engine.asked[len(texts) :]) == sorted(texts)
    assert {lang for _, lang in engine.calls[-2:]} == {"es"}
    so_far = len(engine.asked)
    more = pairs(3, start=6)
    translate(tmp_path, parts(raw, pairs(6), more), languages=("es", "de"))
    new = {text for row in more for text in row[3:6]} - texts
    assert sorted(engine.asked[so_far:]) == sorted([*new] * 2)


def test_a_broken_result_is_made_again(tmp_path, engine) -> None:
    raw = parts(tmp_path / "raw", pairs(6))
    translate(tmp_path, raw)
    before, asked = hashing.sha256(tmp_path / "out"), len(engine.asked)
    for kind in ("translate", "quality"):
        file = sorted((tmp_path / "cache" / kind).rglob("*.parquet"))[0]
        file.write_bytes(file.read_bytes()[:-7])
    translate(tmp_path, raw)
    assert asked < len(engine.asked) <= asked + 4
    assert hashing.sha256(tmp_path / "out") == before


# --- what fails ----------------------------------------------------------------------------------


def test_a_shard_that_fails_leaves_the_others_and_the_old_table(tmp_path, engine) -> None:
    raw = parts(tmp_path / "raw", pairs(6))
    translate(tmp_path, raw)
    before = hashing.sha256(tmp_path / "out")
    engine.fails = {pairs(6)[0].question}
    with pytest.raises(
        UserError, match=r"1 pieces of work failed \(el 1\), the first with: ValueError: it"
    ) as raised:
        translate(tmp_path, raw, languages=("de", "el"))
    assert len(str(raised.value).splitlines()) == 1
    aside = list(shards.failure_folder("translate").iterdir())
    assert [cache.read_json(file) for file in aside] == [
        {"label": "el", "texts": 4, "error": "ValueError: it is too hard"}
    ]
    assert hashing.sha256(tmp_path / "out") == before
    asked = len(engine.asked)
    engine.fails = set()
    translate(tmp_path, raw, languages=("de", "el"))
    assert len(engine.asked) == asked + 4
    assert not shards.failure_folder("translate").exists()


def test_notes_of_earlier_failures_go_when_the_stage_begins(tmp_path, engine) -> None:
    for kind in ("translate", "quality"):
        cache.write_json(shards.failure_folder(kind) / "gone.json", {})
    engine.fails = {pairs(1)[0].question}
    with pytest.raises(UserError, match="1 pieces of work failed"):
        translate(tmp_path, parts(tmp_path / "raw", pairs(1)))
    (note,) = shards.failure_folder("translate").iterdir()
    assert note.name != "gone.json"
    engine.fails = set()
    translate(tmp_path, tmp_path / "raw")
    assert not shards.failure_folder("quality").exists()


def test_a_language_without_rows_is_one_line_before_rows_are_rated(
    tmp_path, tiny_folder, monkeypatch, engine
) -> None:
    raw = parts(tmp_path / "raw", pairs(2))
    engine.unknown = {row.question for row in pairs(2)}
    monkeypatch.setattr(quality, "choose_settings", lambda *cosine: CosineSettings(*cosine, "fp32"))
    with pytest.raises(UserError, match="no row in 'de': shouting has question and passage of none of the 2"):
        translate(tmp_path, raw, cosine=str(tiny_folder))
    assert not (tmp_path / "cache" / "quality").exists()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.json").exists()


def test_an_engine_that_miscounts_has_failed(monkeypatch, engine) -> None:
    monkeypatch.setattr(engine, "translate", lambda texts, lang: [("A",)])
    with pytest.raises(RuntimeError, match="1 translations for 2 texts"):
        shards.translate_shard(TranslateFromMemory(languages=("de",)), SAMPLE, "de", ["a", "b"])


# --- killed --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(tmp_path) -> None:
    calm, torn = tmp_path / "calm", tmp_path / "torn"
    for folder, kills in ((calm, 0), (torn, 24)):
        subprocess.run(
            [sys.executable, interrupted.__file__, str(folder), str(kills)],
            check=True,
            env={**os.environ, "HEXAPLA_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT / "src")},
        )
    assert hashing.sha256(calm / "out") == hashing.sha256(torn / "out")
    assert (calm / "summary.json").read_bytes() == (torn / "summary.json").read_bytes()
    assert not list(torn.glob(".out.*"))
    assert {len(list(calm.glob(f"cache/quality/*/*{kind}"))) for kind in (".npy", ".parquet")} == {16, 48}
    # Of each run the work that it began, in order; only the last can have been left unfinished.
    runs: dict[str, list[str]] = {}
    for line in (torn / "log").read_text().splitlines():
        run, shard = line.split()
        runs.setdefault(run, []).append(shard)
    assert len(runs) > 5
    finished = [shard for begun in runs.values() for shard in begun[:-1]]
    assert len(finished) == len(set(finished))
    for number, begun in enumerate(runs.values()):
        later = {shard for after in list(runs.values())[number + 1 :] for shard in after}
        assert later.isdisjoint(begun[:-1])


# --- from the command line -----------------------------------------------------------------------


def run(tmp_path: Path, raw: Path, sample: Path = SAMPLE, **changes: object) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["translate"] |= {"cosine": ""} | changes
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    flags = {"params": "params.yaml", "out": "out", "summary": "summary.json"}
    argv = [part for flag, name in flags.items() for part in (f"--{flag}", str(tmp_path / name))]
    app.main(["stage", "translate", *argv, "--pairs", str(raw), "--sample", str(sample)])


def test_the_shipped_sample(tmp_path, monkeypatch) -> None:
    languages = tuple(lang for lang in LANGUAGES if lang != "en")
    english = [
        Pair(f"sample/{e['id']}", "sample", "en", *(e[k] for k in TEXTS), f"p{n}", ORIGINAL)
        for n, e in enumerate(sample("en"))
    ]
    parquet.write_pairs(tmp_path / "raw.parquet", english)
    monkeypatch.setattr(quality, "_load_identifier", lambda _: SimpleNamespace(known=(), name="none"))
    run(tmp_path, tmp_path / "raw.parquet")
    assert [row for row, _ in read(tmp_path / "out")] == english + [
        each._replace(lang=lang, engine="memory", **{key: own[key] for key in TEXTS})
        for lang in languages
        for each, own in zip(english, sample(lang), strict=True)
    ]
    summary = cache.read_json(tmp_path / "summary.json")
    assert (summary["engine"], summary["pairs"], summary["rows"]) == ("memory", 336, 3696)
    whole = {"translated": 336, "original": 0, "missing": 0, "answers_lost": 0, "negatives_lost": 0}
    assert summary["languages"] == dict.fromkeys(languages, whole)
    assert {counts["numbers_kept"]["quantiles"][0] for counts in list(summary["quality"].values())[1:]} == {
        1.0
    }


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: list[str], **changes: object) -> None:
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, tmp_path / "raw.parquet", **changes)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.splitlines()) == 1, error
    assert all(part in error for part in wanted), error
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "summary.json").exists()


def test_bad_samples_languages_and_encoders_are_one_line(tmp_path, capsys) -> None:
    parquet.write_pairs(tmp_path / "raw.parquet", pairs(1))
    refused(tmp_path, capsys, ["no 'fr'", "it has ar, de"], languages=["de", "fr"])
    refused(tmp_path, capsys, ["no row in 'de'", "memory", "none of the 1 pairs"], languages=["de"])
    refused(tmp_path, capsys, ["gone.jsonl", "not found"], memories=[str(tmp_path / "gone.jsonl")])
    refused(tmp_path, capsys, ["encoder 'who/knows'", "pinned revision"], cosine="who/knows")
    (tmp_path / "pairs").mkdir()
    row = '{"id": "%s", "question": "q", "passage": "p", "answer": "a"}\n'
    for lang, own in (("en", "1"), ("de", "2")):
        (tmp_path / "pairs" / f"{lang}.jsonl").write_text(row % own, encoding="utf-8")
    refused(tmp_path, capsys, ["de.jsonl:1", "id '2' is not in"], sample=tmp_path)


def test_a_run_tells_mlflow_what_it_did(tmp_path, engine, tracking_store) -> None:
    translate(tmp_path, parts(tmp_path / "raw", pairs(6)))
    client = mlflow.MlflowClient(tracking_uri=tracking_store)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.data.tags["engine"]) == ("translate", "shouting")
    metrics = found.data.metrics
    assert (metrics["rows"], metrics["de/translated"], metrics["de/texts"]) == (12, 6, len(engine.asked))
    assert metrics["texts_per_second"] == pytest.approx(len(engine.asked) / metrics["seconds"])
