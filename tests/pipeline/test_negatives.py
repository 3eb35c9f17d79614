"""From a user's file to the rows that train: what may be a negative comes through, in every language."""

import json

import pytest

from conftest import SAMPLE, sample
from hexapla.config import Collect, Executor, FilesSource, FolderBenchmark, TranslateFromMemory, Validate
from hexapla.io import cache, hashing, tables
from hexapla.pipeline.collect import collect
from hexapla.pipeline.translate import translate
from hexapla.pipeline.validate import validate

# Great Expectations imports modules of the standard library that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")

BENCHMARKS = (FolderBenchmark(name="sample", path=str(SAMPLE / "benchmark")),)
HERE = Executor(workers=1)
COLUMNS = ("question", "passage", "answer")
PAIRS = {lang: sample(lang)[:4] for lang in ("en", "de")}
PLAIN = [rows[1]["passage"] for rows in PAIRS.values()]


def held_out(lang):
    tree = json.loads((SAMPLE / "benchmark" / f"{lang}.json").read_text(encoding="utf-8"))
    return tree["data"][0]["paragraphs"][0]["sentences"][0]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(folder, rows, units=(), **settings):
    """All three stages on a file of `rows` and a memory of `units`; gives rows and summaries."""
    folder.mkdir(exist_ok=True)
    source = FilesSource(name="own", path=lines(folder / "own.jsonl", rows))
    memories = (lines(folder / "memory.jsonl", units),) if units else ()
    path = {name: folder / name for name in ("raw", "parallel", "clean")}
    card = {name: folder / f"{name}.json" for name in ("collect", "translate", "validate")}
    judged = folder / "benchmarks"
    collect(
        Collect(sources=(source,)), BENCHMARKS,
        sample=SAMPLE, out=path["raw"], benchmarks_out=judged, summary=card["collect"],
    )  # fmt: skip
    translate(
        TranslateFromMemory(languages=("de",), memories=memories, cosine=""), HERE,
        pairs=path["raw"], sample=SAMPLE, out=path["parallel"], summary=card["translate"],
    )  # fmt: skip
    validate(
        Validate(**{"language": "off", **settings}), BENCHMARKS, HERE, pairs=path["parallel"], data=judged,
        out=path["clean"], quarantine=folder / "bad.parquet", summary=card["validate"], docs=folder / "docs",
        contamination=folder / "contamination.csv",
    )  # fmt: skip
    found = {(one.id, one.lang): one for one in tables.iter_pairs(tables.read_pairs(path["clean"]))}
    return found, {name: cache.read_json(file) for name, file in card.items()}


def asked(*negatives):
    """The sample's first pairs; the first has these negatives."""
    rows = [{key: row[key] for key in ("id", *COLUMNS)} for row in PAIRS["en"]]
    rows[0] |= {"negatives": list(negatives)}
    return rows


def planted():
    """A negative of every fault, in English and in German, and what may stay."""
    answers = [rows[0]["answer"] for rows in PAIRS.values()]
    assert all(answer and answer not in text for answer, text in zip(answers, PLAIN, strict=True))
    units = [
        dict(zip(("en", "de"), texts, strict=True))
        for texts in (
            (held_out("en"), held_out("de")),
            (f"It may be {answers[0]}, or not.", f"Vielleicht {answers[1]}, vielleicht nicht."),
            ("It is short.", "Kurz."),
            ("x" * 3000, "y" * 3000),
        )
    ]
    negatives = [PLAIN[0], "", PAIRS["en"][0]["passage"], *(unit["en"] for unit in units), "Nobody put this"]
    return negatives, units


def test_each_row_keeps_what_may_be_its_negative(tmp_path):
    negatives, units = planted()
    found, cards = run(tmp_path / "one", asked(*negatives), units, max_passage_chars=2000)
    own = f"own/{PAIRS['en'][0]['id']}"
    assert {lang: found[own, lang].negatives for lang in ("en", "de")} == dict(
        zip(("en", "de"), [(text,) for text in PLAIN], strict=True)
    )
    assert len(found) == 8
    assert all(not row.negatives for (key, _), row in found.items() if key != own)
    assert all(row.passage == PAIRS[lang][0]["passage"] for (key, lang), row in found.items() if key == own)
    assert cards["validate"]["rejected"] == 0
    reported = {"translated": 4, "missing": 0, "answers_lost": 0, "negatives_lost": 2}
    assert cards["translate"]["languages"]["de"].items() >= reported.items()
    assert cards["validate"]["negatives"] == {
        "kept": 2,
        # In English and in German, but for the empty one and the one that nobody translated (too short).
        "dropped": {
            "empty": 1, "in a benchmark": 2, "the passage itself": 2, "holds the answer": 2, "length": 5,
        },
    }  # fmt: skip
    run(tmp_path / "two", asked(*negatives), units, max_passage_chars=2000)
    for name in ("raw", "parallel", "clean", "validate.json"):
        assert hashing.sha256(tmp_path / "one" / name) == hashing.sha256(tmp_path / "two" / name)


def test_rejected_rows_are_put_aside_with_all_their_negatives(tmp_path):
    rows = asked(PLAIN[0], "")
    rows[0]["answer"] = "nowhere to be found"
    found, cards = run(tmp_path, rows, min_kept=0.5)
    assert len(found) == 6
    aside = list(tables.iter_pairs(tables.read_pairs(tmp_path / "bad.parquet")))
    assert [(row.lang, row.negatives) for row in aside] == [("en", (PLAIN[0], "")), ("de", (PLAIN[1],))]
    assert cards["validate"]["negatives"]["kept"] == 0
    assert not any(cards["validate"]["negatives"]["dropped"].values())


def test_data_without_negatives_say_so(tmp_path):
    rows = [{key: row[key] for key in ("id", *COLUMNS)} for row in PAIRS["en"]]
    found, cards = run(tmp_path, rows)
    assert len(found) == 8
    assert not any(row.negatives for row in found.values())
    assert cards["validate"]["negatives"]["kept"] == 0
    assert set(cards["validate"]["negatives"]["dropped"].values()) == {0}
