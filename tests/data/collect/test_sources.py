"""Sources: what goes in comes out with stable ids, and whatever does not fit is named."""

import csv
import dataclasses
import gzip
import json
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hexapla.config import (
    AnySource,
    FilesSource,
    HubSource,
    PresetSource,
    SampleSource,
    Source,
    SqlSource,
    TmxSource,
    reference,
)
from hexapla.data.collect import sources
from hexapla.data.collect.rows import RowReader, SourceCounts, make_pairs
from hexapla.io import cache
from hexapla.schema import Pair, UserError
from hexapla.text.languages import is_known_language

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "data" / "sample"
HELP = ROOT / ".." / "shared" / "corpora" / "help-parallel.jsonl.gz"
GOOD = {"question": "Who sleeps?", "passage": "The cat sleeps.", "answer": "The cat"}


def lines(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(source: Source, counts: SourceCounts | None = None) -> list[Pair]:
    return list(make_pairs(sources.read_rows(source, SAMPLE), source, counts or SourceCounts()))


def read_file(path: object, counts: SourceCounts | None = None, **settings: object) -> list[Pair]:
    return read(FilesSource(name="x", path=str(path), **settings), counts)


def squad(*qas: dict) -> dict:
    return {
        "version": "2.0",
        "data": [{"title": "t", "paragraphs": [{"context": "The cat sleeps.", "qas": [*qas]}]}],
    }


QA = {
    "id": "q1",
    "question": "Who sleeps?",
    "answers": [{"text": "The cat", "answer_start": 0}, {"text": "cat"}],
}
NONE = {"id": "q2", "question": "Who barks?", "answers": [], "is_impossible": True}


def hub_folder(path: Path, **columns: list) -> str:
    """A data set in the hub's real layout: Parquet shards, and a card that names the splits."""
    (path / "data").mkdir(parents=True)
    pq.write_table(pa.table(columns), path / "data" / "train-00000-of-00001.parquet")
    card = {"configs": [{"config_name": "plain", "data_files": [{"split": "train", "path": "data/train-*"}]}]}
    (path / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n", encoding="utf-8")
    return str(path)


def hub(dataset: str, **settings: object) -> Source:
    return HubSource(**{"name": "x", "dataset": dataset, "revision": "abc", **settings})


# --- good rows ---------------------------------------------------------------------------------


def test_formats_agree(tmp_path: Path) -> None:
    rows = [GOOD, {"question": "Who runs?", "passage": 'The dog runs,\n"fast".', "answer": ""}]
    lines(tmp_path / "a.jsonl", *rows)
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, GOOD)
        writer.writeheader()
        writer.writerows(rows)
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with sqlite3.connect(tmp_path / "a.db") as base:
        base.execute("CREATE TABLE qa (question, passage, answer)")
        base.executemany("INSERT INTO qa VALUES (:question, :passage, :answer)", rows)
    base.close()
    folder = hub_folder(tmp_path / "hub", **{key: [row[key] for row in rows] for key in GOOD})
    kinds = ("jsonl", "csv", "parquet", "jsonl.gz", "csv.gz")
    found = [read_file(tmp_path / f"a.{kind}") for kind in kinds]
    found.append(read(hub(folder)))
    found.append(read(SqlSource(name="x", url=f"sqlite:///{tmp_path / 'a.db'}", query="qa")))
    assert len(found[0]) == 2
    assert found[0][0].question == "Who sleeps?"
    assert found[0][0].lang == "en"
    assert found[0][0].engine == "original"
    assert all(one == found[0] for one in found)


def test_negatives_are_a_list_or_where_there_are_none_a_text(tmp_path: Path) -> None:
    cells = [["The dog runs.", " "], [], None, [" It rains. "]]
    rows = [{**GOOD, "question": f"{i}?", "hard": cell} for i, cell in enumerate(cells)]
    lines(tmp_path / "a.jsonl", *rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    folder = hub_folder(tmp_path / "hub", **{key: [row[key] for row in rows] for key in rows[0]})
    columns = {"negatives": "hard"}
    found = [read_file(tmp_path / f"a.{kind}", columns=columns) for kind in ("jsonl", "parquet")]
    found.append(read(hub(folder, columns=columns)))
    wanted = [("The dog runs.", ""), (), (), ("It rains.",)]
    assert [[pair.negatives for pair in one] for one in found] == [wanted] * 3
    (tmp_path / "a.csv").write_text('question,passage,hard\n1?,The cat.,\n2?,The cat.,"A, b."\n')
    assert [pair.negatives for pair in read_file(tmp_path / "a.csv", columns=columns)] == [(), ("A, b.",)]


def test_glob_takes_all_files_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    for name in "bca":
        lines(tmp_path / "sub" / f"{name}.jsonl", {**GOOD, "id": name, "question": f"{name}?"})
    (tmp_path / "sub" / "d.txt").write_text("no source", encoding="utf-8")
    assert [pair.id for pair in read_file(tmp_path / "sub" / "*.jsonl")] == ["x/a", "x/b", "x/c"]
    monkeypatch.chdir(tmp_path)
    assert len(read_file("**/*.jsonl")) == 3


def test_squad_takes_the_first_answer_and_skips_what_has_none(tmp_path: Path) -> None:
    cache.write_json(tmp_path / "dev.json", squad(QA, NONE))
    counts = SourceCounts()
    (pair,) = read_file(tmp_path / "dev.json", counts)
    assert pair[:6] == ("x/q1", "x", "en", "Who sleeps?", "The cat sleeps.", "The cat")
    assert (counts.read, counts.skipped) == (2, 1)


def test_hub_answers_in_squad_form(tmp_path: Path) -> None:
    folder = hub_folder(
        tmp_path / "hub",
        id=["a", "b"],
        question=["Who?", "What?"],
        context=["The cat.", "The dog."],
        answers=[{"text": ["cat", "The"], "answer_start": [4, 0]}, {"text": [], "answer_start": []}],
    )
    counts = SourceCounts()
    (pair,) = read(hub(folder, config="plain", columns={"passage": "context"}), counts)
    assert (pair.id, pair.answer, counts.skipped) == ("x/a", "cat", 1)


def test_hub_files_may_be_named_where_the_dataset_does_not(tmp_path: Path) -> None:
    for lang, text in {"english": "Who?", "german": "Wer?"}.items():
        (tmp_path / "hub" / lang).mkdir(parents=True)
        table = pa.table({"question": [text], "passage": ["The cat."]})
        pq.write_table(table, tmp_path / "hub" / lang / "a-train.parquet")
    (pair,) = read(hub(str(tmp_path / "hub"), path="english/a-train*.parquet"))
    assert pair.question == "Who?"


def test_a_hub_folder_may_lie_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_folder(tmp_path / "hub", question=["Who?"], passage=["The cat."])
    monkeypatch.setenv("HOME", str(tmp_path))
    (pair,) = read(hub("~/hub"))
    assert pair.question == "Who?"
    refused(["'~/gone'", "no such folder"], hub("~/gone"))


def test_tmx_units_become_pairs(tmp_path: Path) -> None:
    def unit(name: str, **texts: str) -> str:
        variants = "".join(f'<tuv xml:lang="{lang}"><seg>{text}</seg></tuv>' for lang, text in texts.items())
        return f'<tu tuid="{name}">{variants}</tu>'

    def write(*units: str) -> Source:
        path = tmp_path / "a.tmx"
        path.write_text(f"<tmx><body>{''.join(units)}</body></tmx>", encoding="utf-8")
        return TmxSource(name="x", path=str(path))

    question = unit("a/b/question", de="Wer schläft?", en="Who sleeps?", fr="Qui ?")
    passage = unit("a/b/passage", de="Die Katze schläft.", en="The cat sleeps.")
    source = write(
        question,
        passage,
        unit("a/b/answer", en="The cat"),
        unit("c/question", en="Q"),
        unit("c/passage", en="P"),
    )
    found = read(source)
    assert [(pair.id, pair.lang, pair.answer) for pair in found] == [
        ("x/a/b", "en", "The cat"), ("x/a/b", "de", ""), ("x/c", "en", ""),
    ]  # fmt: skip
    assert found[1].question == "Wer schläft?"
    assert list(sources.read_rows(source, SAMPLE, skip=1)) == list(sources.read_rows(source, SAMPLE))[1:]
    with pytest.raises(UserError, match="unit 1: tuid is 'a', wants <id>/question"):
        read(write(unit("a", en="Who?")))
    with pytest.raises(UserError, match="unit 1: 'a' has no English question and passage side by side"):
        read(write(unit("a/question", en="Who?"), unit("b/question", en="Who?"), unit("a/passage", en="P")))


@pytest.mark.skipif(not HELP.is_file(), reason="the shared corpora are not here")
def test_the_help_in_many_languages_is_read_as_it_lies() -> None:
    columns = {"question": "texts.{lang}.question", "passage": "texts.{lang}.passage"}
    counts = SourceCounts()
    found = read_file(HELP, counts, columns=columns, languages=("en", "de", "zh", "hi"))
    by_language = {lang: sum(pair.lang == lang for pair in found) for lang in ("en", "de", "zh", "hi")}
    assert by_language == {"en": 8175, "de": 8161, "zh": 5411, "hi": 202}
    assert counts.read == 8175
    assert counts.translations == 8161 + 5411 + 202


def test_the_sample_is_read_as_it_was() -> None:
    counts = SourceCounts()
    found = read(SampleSource(), counts)
    written = [json.loads(line) for line in (SAMPLE / "pairs" / "en.jsonl").read_text("utf-8").splitlines()]
    assert [(p.id, p.question, p.passage, p.answer) for p in found] == [
        (f"sample/{row['id']}", row["question"], row["passage"], row["answer"]) for row in written
    ]
    assert vars(counts) == {**vars(SourceCounts()), "read": 336}


# --- where to go on, and whether to ----------------------------------------------------------------


def test_rows_are_skipped_over_files_and_shards(tmp_path: Path) -> None:
    for name in "ab":
        lines(tmp_path / f"{name}.jsonl", *({**GOOD, "id": f"{name}{i}"} for i in range(3)))
    folder = hub_folder(tmp_path / "hub", question=["1?", "2?", "3?"], passage=["The cat."] * 3)
    with sqlite3.connect(tmp_path / "a.db") as base:
        base.execute("CREATE TABLE qa (question, passage)")
        base.executemany("INSERT INTO qa VALUES (?, ?)", [(f"{i}?", "The cat.") for i in range(5)])
    base.close()
    for source in (
        FilesSource(path=str(tmp_path / "*.jsonl")),
        SampleSource(),
        hub(folder),
        SqlSource(url=f"sqlite:///{tmp_path / 'a.db'}", query="qa"),
    ):
        whole = list(sources.read_rows(source, SAMPLE))
        for skip in (0, 1, 3, 4, len(whole), len(whole) + 2):
            assert list(sources.read_rows(source, SAMPLE, skip=skip)) == whole[skip:]


def test_a_fingerprint_follows_the_files_and_the_settings(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", GOOD)
    lines(tmp_path / "b.jsonl", GOOD, GOOD)

    def known(**settings: object) -> str | None:
        return sources.fingerprint(FilesSource(**{"path": path, **settings}), SAMPLE)

    one = known()
    assert one == known()
    assert len(one or "") == 64
    others = [
        known(name="y"),
        known(path=str(tmp_path / "b.jsonl")),
        known(path=str(tmp_path / "*.jsonl")),
        known(columns={"answer": "a"}),
        known(where={"a": "b"}),
        known(limit=3),
        known(sample=0.5),
        known(cut_passages=100),
        known(languages=("en",)),
        sources.fingerprint(SampleSource(), SAMPLE),
    ]
    assert len({one, *others}) == len(others) + 1
    (tmp_path / "c.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes())
    assert known(path=str(tmp_path / "c.jsonl")) == one
    lines(tmp_path / "a.jsonl", {**GOOD, "answer": ""})
    assert known() != one
    with pytest.raises(UserError, match="nowhere.jsonl: not found"):
        known(path=str(tmp_path / "nowhere.jsonl"))


def test_a_fingerprint_follows_the_version_of_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources.fingerprint(SampleSource(), SAMPLE)
    monkeypatch.setattr(sources, "FORMAT", sources.FORMAT + 1)
    assert sources.fingerprint(SampleSource(), SAMPLE) != before


def test_a_fingerprint_is_known_of_a_commit_and_of_a_folder_alone(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "hub", question=["1?"], passage=["The cat."])

    def known(**settings: object) -> str | None:
        return sources.fingerprint(hub(**{"dataset": "a/b", **settings}), SAMPLE)

    assert known(revision="main") is None
    assert known(revision="a" * 39) is None
    commits = [known(revision="a" * 40), known(revision="b" * 40), known(revision="a" * 40, config="c")]
    files = [known(revision="a" * 40, path=f"{name}.parquet") for name in "xy"]
    local = [known(dataset=folder)]
    (tmp_path / "hub" / "more.parquet").write_bytes(b"")
    local.append(known(dataset=folder))
    assert None not in (*commits, *files, *local)
    assert len({*commits, *files, *local}) == 7
    assert sources.fingerprint(SqlSource(url="sqlite:///a", query="b"), SAMPLE) is None


def test_every_kind_has_a_reader() -> None:
    assert set(sources.READERS) == {
        kind for kind in reference.sections(AnySource) if kind is not PresetSource
    }


# --- mistakes --------------------------------------------------------------------------------------


def refused(wanted: list[str], source: Source) -> None:
    with pytest.raises(UserError) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in wanted), caught.value


def test_bad_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"data": [{"paragraphs": [{"qas": [{"id": "q"}]}]}]}', encoding="utf-8")
    cache.write_json(tmp_path / "none.json", squad(NONE))
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    cases = {
        "missing.jsonl": ["missing.jsonl", "not found"],
        "*.missing": ["*.missing", "no file matches"],
        "a.json": ["a.json", "question 'q'", "SQuAD", "answers"],
        "a.txt": ["a.txt", "format"],
    }
    for name, wanted in cases.items():
        refused(wanted, FilesSource(path=str(tmp_path / name)))
    named = FilesSource(path=str(tmp_path / "none.json"), columns={"question": "q"})
    refused(["none.json", "columns"], named)


def test_bad_data_sets_are_refused(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "hub", question=["Who?"], context=["The cat."])
    refused(["row 1", "'passage'", "question, context"], hub(folder))
    refused(["split 'dev'", "ValueError", "train"], hub(folder, split="dev"))
    refused(["'nope'", "plain"], hub(folder, config="nope"))
    refused(["no such folder"], hub(str(tmp_path / "gone")))


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*args: object, **options: object) -> None:
        assert options["revision"] == "abc"
        assert options["streaming"] is True
        assert "data_files" not in options
        raise ConnectionError("Couldn't reach 'a/b' on the Hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="a/b.*ConnectionError.*network") as caught:
        next(sources.read_rows(hub("a/b"), SAMPLE))
    assert "\n" not in str(caught.value)


# --- presets -------------------------------------------------------------------------------------

PRESETS = sources.load_presets()
LOADABLE = [name for name, preset in PRESETS.items() if preset.loadable]
# A row as each dataset documents its columns.
ROWS = {
    "wikiqa": {"question_id": "Q1", "question": "Who?", "answer": "The cat.", "label": 1},
    "mr-tydi-en": {
        "query_id": "7",
        "query": "Who?",
        "positive_passages": [{"docid": "1#0", "text": "The cat.", "title": "Cat"}],
        "negative_passages": [{"docid": "2#0", "text": "The dog.", "title": "Dog"}],
    },
    "duorc": {
        "plot_id": "/m/1", "plot": "The cat.", "title": "Cat", "question_id": "a-b", "question": "Who?",
        "answers": ["cat"], "no_answer": False,
    },
    "newsqa": {"context": "The cat.", "question": "Who?", "answers": ["cat"], "key": "k", "labels": []},
    "natural-questions": {"query": "Who?", "answer": "The cat."},
    "yahoo-qa": {"question": "Who?", "answer": "The cat."},
    "mfaq": {"domain_id": 1, "pair_id": 2, "language": "en", "question": "Who?", "answer": "The cat."},
    "squad": {
        "id": "5", "title": "Cat", "context": "The cat.", "question": "Who?",
        "answers": {"text": ["cat"], "answer_start": [4]},
    },
}  # fmt: skip
ANSWERED = {"duorc", "newsqa", "squad"}


def test_the_papers_sources_are_there():
    assert set(PRESETS) == {
        "wikiqa", "mr-tydi-en", "duorc", "newsqa", "natural-questions", "yahoo-qa", "entity-questions",
        "mfaq", "mmarco", "squad",
    }  # fmt: skip
    for preset in PRESETS.values():
        assert preset.license
        assert preset.note
        assert all(map(is_known_language, preset.languages))
    assert set(ROWS) == set(LOADABLE)


@pytest.mark.parametrize("name", LOADABLE)
def test_a_preset_becomes_a_pinned_dataset_of_the_hub(name):
    given = PresetSource(preset=name, limit=7, sample=0.5, min_passage_chars=3, cut_passages=400)
    source = sources.resolve_preset(given)
    assert (type(source), source.title) == (HubSource, name)
    assert len(source.revision) == 40
    assert set(source.revision) <= set("0123456789abcdef")
    assert "/" in source.dataset
    assert "{" not in source.path
    assert (source.limit, source.sample, source.min_passage_chars, source.cut_passages) == (7, 0.5, 3, 400)
    assert sources.resolve_preset(source) == source


@pytest.mark.parametrize("name", LOADABLE)
def test_the_columns_find_question_and_passage_in_a_documented_row(name):
    reader = RowReader("row 1", ROWS[name], sources.resolve_preset(PresetSource(preset=name)).columns)
    assert (reader.read_text("question"), reader.read_text("passage")) == ("Who?", "The cat.")
    assert reader.read_answer() == ("cat" if name in ANSWERED else "")
    assert reader.read_negatives() == ()
    reader.read_text("id")


@pytest.mark.parametrize("name", LOADABLE)
def test_datasets_reads_a_preset_from_files_that_lie_as_the_hub_has_them(name, tmp_path):
    preset = PRESETS[name]
    pattern = preset.path.replace("{split}", "train").replace("*", "-00000-of-00001")
    file = tmp_path / (pattern or f"{preset.config or 'data'}/train-00000-of-00001.parquet")
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([ROWS[name]]), file)
    if not preset.path:
        part = {"split": "train", "path": f"{file.parent.name}/train-*"}
        card = {"configs": [{"config_name": preset.config or "default", "data_files": [part]}]}
        (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    source = dataclasses.replace(sources.resolve_preset(PresetSource(preset=name)), dataset=str(tmp_path))
    (pair,) = make_pairs(sources.read_rows(source, tmp_path), source, SourceCounts())
    assert (pair.source, pair.lang, pair.question, pair.passage) == (name, "en", "Who?", "The cat.")
    assert pair.negatives == ()


def test_negatives_that_a_preset_leaves_out_can_be_asked_for():
    asked = PresetSource(preset="mr-tydi-en", columns={"negatives": "negative_passages.text"})
    reader = RowReader("row 1", ROWS["mr-tydi-en"], sources.resolve_preset(asked).columns)
    assert reader.read_negatives() == ("The dog.",)


def test_what_stands_beside_a_preset_goes_before_it():
    source = sources.resolve_preset(
        PresetSource(
            preset="duorc", name="films", split="validation", columns={"negatives": "hard"}, where={"a": "b"}
        )
    )
    assert (source.title, source.split) == ("films", "validation")
    assert source.columns == {**PRESETS["duorc"].columns, "negatives": "hard"}
    assert source.where == {"a": "b"}
    assert (
        sources.resolve_preset(PresetSource(preset="mfaq", split="validation")).path
        == "en_flat/mfaq-validation*.parquet"
    )


@pytest.mark.parametrize(("name", "config"), [("duorc", "ParaphraseRC"), ("yahoo-qa", "title-answer-pair")])
def test_a_configuration_that_a_note_names_can_be_asked_for(name, config, monkeypatch):
    import datasets

    def loaded(dataset, given, **options):
        assert (dataset, given) == (PRESETS[name].hub, config)
        assert options["revision"] == PRESETS[name].revision
        return [ROWS[name]]

    assert f"`config: {config}`" in PRESETS[name].note
    monkeypatch.setattr(datasets, "load_dataset", loaded)
    source = sources.resolve_preset(PresetSource(preset=name, config=config, cut_passages=400))
    (pair,) = make_pairs(sources.read_rows(source, None), source, SourceCounts())
    assert (pair.source, pair.passage) == (name, "The cat.")


def test_other_sources_stay_as_they_are():
    source = FilesSource(path="a.jsonl")
    assert sources.resolve_preset(source) is source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("natural-question", "'natural-question' is unknown; did you mean 'natural-questions'?"),
        ("bible", "'bible' is unknown; known are wikiqa"),
        ("entity-questions", "'entity-questions' can't be loaded: .*no passages: download.*kind 'files'"),
        ("mmarco", "'mmarco' can't be loaded: .*script.*download.*kind 'sql'"),
    ],
)
def test_what_is_unknown_or_out_of_reach_says_what_to_do(name, message):
    with pytest.raises(UserError, match=message) as caught:
        sources.resolve_preset(PresetSource(preset=name))
    assert "\n" not in str(caught.value)


def test_a_preset_without_a_known_commit_asks_for_one(monkeypatch):
    monkeypatch.setitem(PRESETS, "squad", PRESETS["squad"]._replace(revision=""))
    with pytest.raises(
        UserError, match=r"kind 'hub' with dataset rajpurkar/squad and a `revision`.*commits/main"
    ):
        sources.resolve_preset(PresetSource(preset="squad"))
