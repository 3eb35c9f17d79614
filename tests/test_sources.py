"""Sources: what goes in comes out with stable ids, and whatever does not fit is named."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hexapla import cli, sources, store
from hexapla.records import Mistake
from hexapla.stages.collect import READERS, collect

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
GOOD = {"question": "Who sleeps?", "passage": "The cat sleeps.", "answer": "The cat"}
texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


def lines(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


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


def run(tmp_path: Path, *entries: dict, sample: Path = SAMPLE) -> None:
    """The stage as its command line runs it; its outputs lie in `tmp_path`."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["collect"]["sources"] = list(entries)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    tree["benchmarks"] = [{"name": "sample", "path": str(SAMPLE / "benchmark")}]
    flags = {"params": "params.yaml", "out": "out.parquet", "summary": "summary.json", "benchmarks-out": "b"}
    argv = [part for flag, name in flags.items() for part in (f"--{flag}", str(tmp_path / name))]
    cli.run(collect, [*argv, "--sample", str(sample)])


# --- good rows ---------------------------------------------------------------------------------


def test_formats_agree(tmp_path: Path) -> None:
    rows = [GOOD, {"question": "Who runs?", "passage": 'The dog runs,\n"fast".', "answer": ""}]
    lines(tmp_path / "a.jsonl", *rows)
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, GOOD)
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    folder = hub_folder(tmp_path / "hub", **{key: [row[key] for row in rows] for key in GOOD})
    found = [
        list(sources.file_pairs(str(tmp_path / f"a.{kind}"), name="x"))
        for kind in ("jsonl", "csv", "parquet")
    ]
    found.append(list(sources.hub_pairs(folder, name="x", revision="abc")))
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
    hub = hub_folder(tmp_path / "hub", **{key: [row[key] for row in rows] for key in rows[0]})
    columns = {"negatives": "hard"}
    found = [
        list(sources.file_pairs(str(tmp_path / f"a.{kind}"), name="x", columns=columns))
        for kind in ("jsonl", "parquet")
    ]
    found.append(list(sources.hub_pairs(hub, name="x", revision="abc", columns=columns)))
    wanted = [("The dog runs.", ""), (), (), ("It rains.",)]
    assert [[pair.negatives for pair in one] for one in found] == [wanted] * 3
    (tmp_path / "a.csv").write_text('question,passage,hard\n1?,The cat.,\n2?,The cat.,"A, b."\n')
    read = sources.file_pairs(str(tmp_path / "a.csv"), name="x", columns=columns)
    assert [pair.negatives for pair in read] == [(), ("A, b.",)]


def test_negatives_change_no_id_and_are_none_where_none_are_given(tmp_path: Path) -> None:
    read = [
        next(sources.file_pairs(lines(tmp_path / "a.jsonl", row), name="x"))
        for row in (GOOD, {**GOOD, "negatives": ["The dog runs."]})
    ]
    assert [pair.negatives for pair in read] == [(), ("The dog runs.",)]
    assert read[0] == read[1]._replace(negatives=())
    with pytest.raises(Mistake, match="a.jsonl:1: no column 'hard'.*columns: {negatives: ...}"):
        list(sources.file_pairs(str(tmp_path / "a.jsonl"), name="x", columns={"negatives": "hard"}))


def test_own_columns_and_ids(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"q": " Who? \n", "text": "The cat.", "key": 7, "language": "en"})
    columns = {"question": "q", "passage": "text", "id": "key", "lang": "language"}
    (pair,) = sources.file_pairs(path, name="own", columns=columns)
    assert (pair.id, pair.question, pair.answer) == ("own/7", "Who?", "")


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.randoms())
def test_content_ids_do_not_depend_on_the_order(rows, random) -> None:
    named = [("x, row", {"question": question, "passage": passage}) for question, passage in rows]
    shuffled = random.sample(named, len(named))
    first, second = ({*sources._pairs(given, {}, "x", sources.Tally())} for given in (named, shuffled))
    assert {pair.id for pair in first} == {pair.id for pair in second}
    assert first == second


@given(texts, texts)
def test_equal_passages_share_their_id_and_only_they(one, other) -> None:
    rows = [("x", {"question": "Who?", "passage": text}) for text in (one, f"  {one}\n", other)]
    first, spaced, last = (pair.passage_id for pair in sources._pairs(rows, {}, "x", sources.Tally()))
    assert first == spaced
    assert (first == last) == (sources._digest(one) == sources._digest(other))


def test_glob_takes_all_files_in_order(tmp_path: Path) -> None:
    for name in "bca":
        lines(tmp_path / f"{name}.jsonl", {**GOOD, "id": name, "question": f"{name}?"})
    (tmp_path / "d.txt").write_text("no source", encoding="utf-8")
    found = [pair.id for pair in sources.file_pairs(str(tmp_path / "*.jsonl"), name="x")]
    assert found == ["x/a", "x/b", "x/c"]


def test_glob_is_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    lines(tmp_path / "sub" / "a.jsonl", GOOD)
    monkeypatch.chdir(tmp_path)
    assert len(list(sources.file_pairs("**/*.jsonl", name="x"))) == 1


def test_squad_takes_the_first_answer_and_skips_what_has_none(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    store.write_json(path, squad(QA, NONE))
    tally = sources.Tally()
    (pair,) = sources.file_pairs(str(path), name="squad", tally=tally)
    assert pair[:6] == ("squad/q1", "squad", "en", "Who sleeps?", "The cat sleeps.", "The cat")
    assert tally.skipped == 1


def test_hub_answers_in_squad_form(tmp_path: Path) -> None:
    folder = hub_folder(
        tmp_path / "hub",
        id=["a", "b"],
        question=["Who?", "What?"],
        context=["The cat.", "The dog."],
        answers=[{"text": ["cat", "The"], "answer_start": [4, 0]}, {"text": [], "answer_start": []}],
    )
    tally = sources.Tally()
    columns = {"passage": "context"}
    (pair,) = sources.hub_pairs(
        folder, name="h", revision="abc", config="plain", columns=columns, tally=tally
    )
    assert (pair.id, pair.answer, tally.skipped) == ("h/a", "cat", 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=20), st.integers(0, 20))
def test_distinct_keeps_the_first_of_each_across_sources(rows, cut) -> None:
    pairs = list(
        sources._pairs([("x", {"question": q, "passage": p}) for q, p in rows], {}, "x", sources.Tally())
    )
    seen: set[bytes] = set()
    tallies = sources.Tally(), sources.Tally()
    kept = [
        *sources.distinct(pairs[:cut], seen, tallies[0]),
        *sources.distinct(pairs[cut:], seen, tallies[1]),
    ]
    assert kept == list(dict.fromkeys(pairs))
    assert sum(tally.kept for tally in tallies) == len(kept)
    assert all(tally.read == tally.kept + tally.duplicates for tally in tallies)


# --- the stage ---------------------------------------------------------------------------------


def test_stage_on_the_shipped_sample_and_more(tmp_path: Path) -> None:
    first = json.loads((SAMPLE / "pairs" / "en.jsonl").read_text(encoding="utf-8").splitlines()[0])
    path = lines(tmp_path / "more.jsonl", {**first, "id": "again"}, GOOD, {**GOOD, "question": "Again?"})
    run(tmp_path, {"kind": "sample"}, {"kind": "files", "name": "more", "path": path, "limit": 2})
    pairs = list(store.iter_pairs(store.read_pairs(tmp_path / "out.parquet")))
    assert len(pairs) == 337
    assert len({pair.id for pair in pairs}) == 337
    assert pairs[0].id == f"sample/{first['id']}"
    summary = store.read_json(tmp_path / "summary.json")
    assert list(summary.pop("benchmarks")) == ["sample"]
    assert summary == {
        "sources": {
            "sample": {"read": 336, "kept": 336, "duplicates": 0, "skipped": 0},
            "more": {"read": 2, "kept": 1, "duplicates": 1, "skipped": 0},
        },
        "pairs": 337,
        "duplicates": 1,
    }


def test_every_kind_has_a_reader() -> None:
    from typing import get_args, get_type_hints

    from hexapla.params import Source

    assert set(READERS) == set(get_args(get_type_hints(Source)["kind"]))


MISTAKES = {
    "empty question": ([{**GOOD, "question": " "}], {}, ["a.jsonl:1", "'question' is empty"]),
    "null passage": ([GOOD, {**GOOD, "passage": None}], {}, ["a.jsonl:2", "'passage' is empty"]),
    "no column": (
        [{"question": "Who?", "context": "x"}],
        {},
        [":1", "'passage'", "question, context", "columns"],
    ),
    "mapped column": ([GOOD], {"answer": "reply"}, [":1", "'reply'", "columns: {answer: ...}"]),
    "no text": ([{**GOOD, "passage": 3}], {}, [":1", "'passage' holds int"]),
    "no text as id": ([{**GOOD, "id": True}], {}, [":1", "'id' holds bool"]),
    "no text as answer": ([{**GOOD, "answer": 3}], {}, [":1", "'answer' holds int"]),
    "no text as negatives": (
        [GOOD, {**GOOD, "negatives": {"text": ["x"]}}],
        {},
        [":2", "'negatives' holds dict", "wants a list of texts"],
    ),
    "no text among negatives": (
        [{**GOOD, "negatives": ["x", 3]}],
        {},
        ["a.jsonl:1", "'negatives[1]' holds int, wants text"],
    ),
    "half a surrogate": ([{**GOOD, "passage": "\ud800"}], {}, [":1", "'passage'", "surrogate"]),
    "another language": ([GOOD, {**GOOD, "lang": "de"}], {}, [":2", "'lang' is 'de'", "English"]),
    "mapped language": ([{**GOOD, "l": "fr"}], {"lang": "l"}, [":1", "'l' is 'fr'"]),
    "an id twice": ([{**GOOD, "id": "i"}, {**GOOD, "id": "i", "question": "?"}], {}, [":2", "id 'i'"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_bad_row_is_one_line_and_writes_nothing(
    case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, columns, wanted = MISTAKES[case]
    path = lines(tmp_path / "a.jsonl", *rows)
    refused(tmp_path, capsys, wanted, {"kind": "files", "path": path, "columns": columns})


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: list[str], entry: dict) -> None:
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, entry)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.splitlines()) == 1
    assert all(part in error for part in wanted), error
    assert not (tmp_path / "out.parquet").exists()
    assert not (tmp_path / "summary.json").exists()


def test_bad_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text('{"data": [{"paragraphs": [{"qas": [{"id": "q"}]}]}]}', encoding="utf-8")
    (tmp_path / "header.csv").write_text("question,passage\n", encoding="utf-8")
    store.write_json(tmp_path / "none.json", squad(NONE))
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    cases = {
        "missing.jsonl": ["missing.jsonl", "not found"],
        "*.missing": ["*.missing", "no file matches"],
        "a.json": ["a.json", "question 'q'", "SQuAD", "answers"],
        "header.csv": ["no pairs in 'files'"],
        "none.json": ["no pairs in 'files'", "1 questions without an answer"],
        "a.txt": ["a.txt", "format"],
    }
    for name, wanted in cases.items():
        refused(tmp_path, capsys, wanted, {"kind": "files", "path": str(tmp_path / name)})
    named = {"kind": "files", "path": str(tmp_path / "none.json"), "columns": {"question": "q"}}
    refused(tmp_path, capsys, ["none.json", "columns"], named)


def test_bad_data_sets_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hub_folder(tmp_path / "hub", question=["Who?"], context=["The cat."])
    entry = {"kind": "hub", "dataset": folder, "revision": "abc"}
    refused(tmp_path, capsys, ["row 1", "'passage'", "question, context"], entry)
    refused(tmp_path, capsys, ["split 'dev'", "ValueError", "train"], {**entry, "split": "dev"})
    refused(tmp_path, capsys, ["'nope'", "plain"], {**entry, "config": "nope"})
    refused(tmp_path, capsys, ["no such folder"], {**entry, "dataset": str(tmp_path / "gone")})


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*args: object, **options: object) -> None:
        assert options["revision"] == "abc"
        assert options["streaming"] is True
        raise ConnectionError("Couldn't reach 'a/b' on the Hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(Mistake, match="a/b.*ConnectionError.*network") as caught:
        next(sources.hub_pairs("a/b", name="h", revision="abc"))
    assert "\n" not in str(caught.value)
