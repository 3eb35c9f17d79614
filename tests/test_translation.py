"""What an engine knows comes back in place, what it doesn't is said, and no language is mixed up."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT, SAMPLE
from hexapla import cli, store, translation
from hexapla.records import Mistake, Pair
from hexapla.stages.collect import collect
from hexapla.stages.translate import translate
from hexapla.translation import Memory, Tally


def pair(question: str = "the cat sleeps", passage: str = "the dog runs", answer: str = "") -> Pair:
    return Pair("x/1", "x", "en", question, passage, answer, "p1", "original")


# --- rows from an engine -------------------------------------------------------------------------


class Fake:
    name = "fake"

    def __init__(self, **known: tuple[str, ...]) -> None:
        self.known, self.calls, self.seen = known, 0, []

    def check(self, languages) -> None: ...

    def translate(self, texts, lang):
        self.calls += 1
        self.seen += texts
        return [self.known.get(text, ()) for text in texts]


@given(
    st.lists(
        st.sampled_from([(q, p, a) for q in "qx" for p in "px" for a in ("", "a", "b", "x")]), max_size=30
    )
)
def test_a_row_needs_question_and_passage_and_nothing_stays_english(rows) -> None:
    engine = Fake(q=("Q", "Q2"), p=("P holds A2",), a=("A1", "A2"), b=("B",))
    tally = Tally()
    given_pairs = [
        Pair(f"x/{n}", "x", "en", q, p, a, f"p{p}", "original") for n, (q, p, a) in enumerate(rows)
    ]
    made = list(translation.translate_pairs(given_pairs, "de", engine, tally))
    whole = [one for one in given_pairs if (one.question, one.passage) == ("q", "p")]
    assert [one.id for one in made] == [one.id for one in whole]
    assert [one.answer for one in made] == ["A2" if one.answer == "a" else "" for one in whole]
    assert {one[3:5] + one[6:] for one in made} <= {("Q", "P holds A2", "pp", "fake", ())}
    assert tally.translated == len(made)
    assert tally.missing == len(rows) - len(made)
    assert tally.answers_lost == sum(one.answer in ("b", "x") for one in whole)


@given(st.lists(st.tuples(st.sampled_from("px"), st.lists(st.sampled_from("pnmx"))), max_size=30))
def test_negatives_are_translated_as_passages_are_and_fall_alone(rows) -> None:
    known = {"q": ("Q",), "p": ("P", "P2"), "n": ("N",), "m": ("M",)}
    engine, tally = Fake(**known), Tally()
    asked = [pair("q", p)._replace(id=f"x/{i}", negatives=(*ns,)) for i, (p, ns) in enumerate(rows)]
    made = {one.id: one.negatives for one in translation.translate_pairs(asked, "de", engine, tally)}
    # In this world a translation is its text in capitals, and x has none.
    assert made == {
        f"x/{i}": tuple("".join(ns).replace("x", "").upper()) for i, (p, ns) in enumerate(rows) if p == "p"
    }
    assert tally.negatives_lost == sum(ns.count("x") for p, ns in rows if p == "p")
    assert tally.translated == len(made)
    assert len(engine.seen) == len(set(engine.seen))


def test_pairs_go_to_the_engine_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "_CHUNK", 2)
    engine = Fake(q=("Q",), p=("P",))
    made = list(translation.translate_pairs([pair("q", "p")] * 5, "de", engine, Tally()))
    assert (len(made), engine.calls) == (5, 3)


# --- the memory ----------------------------------------------------------------------------------


def test_memory_keeps_alternatives_in_order() -> None:
    memory = Memory(
        [{"en": "May", "de": "Mai"}, {"en": "May", "de": "Im Mai", "es": "Mayo"}, {"en": "May", "de": "Mai "}]
    )
    assert memory.translate(["May", "may", ""], "de") == [("Mai", "Im Mai"), (), ()]
    assert memory.translate(["May"], "es") == [("Mayo",)]


def test_memory_ignores_spaces_and_composition_only() -> None:
    memory = Memory([{"en": "caf\u00e9  au\nlait", "de": " Milchkaffee "}])
    assert memory.translate([" cafe\u0301 au lait", "Caf\u00e9 au lait"], "de") == [("Milchkaffee",), ()]


def test_memory_refuses_a_language_that_it_has_not() -> None:
    with pytest.raises(Mistake, match=r"no 'fr' \(it has de\)"):
        Memory([{"en": "May", "de": "Mai", "fr": " "}]).check(["de", "fr"])


def test_memory_files_come_before_the_sample(tmp_path: Path) -> None:
    first = json.loads((SAMPLE / "pairs" / "en.jsonl").read_text(encoding="utf-8").splitlines()[0])
    tmx = tmp_path / "own.tmx"
    tmx.write_text(
        '<?xml version="1.0"?><tmx version="1.4"><header/><body><tu>'
        f'<tuv xml:lang="en-GB"><seg>{first["answer"]}</seg></tuv><tuv xml:lang="de"><seg>Meine</seg></tuv>'
        "</tu></body></tmx>",
        encoding="utf-8",
    )
    own = tmp_path / "own.jsonl"
    own.write_text('{"en": "hello", "sw": "habari"}\n', encoding="utf-8")
    memory = translation.memory(sample=SAMPLE, memories=[str(tmx), str(own)])
    assert memory.translate([first["answer"]], "de")[0][0] == "Meine"
    assert len(memory.translate([first["answer"]], "de")[0]) > 1
    assert memory.translate(["hello"], "sw") == [("habari",)]


# --- the stage -------------------------------------------------------------------------------------


def run(tmp_path: Path, pairs: Path, sample: Path = SAMPLE, **changes: object) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["translate"] |= changes
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    flags = {"params": "params.yaml", "out": "out.parquet", "summary": "summary.json"}
    argv = [part for flag, name in flags.items() for part in (f"--{flag}", str(tmp_path / name))]
    cli.run(translate, [*argv, "--pairs", str(pairs), "--sample", str(sample)])


def test_stage_on_the_shipped_sample(tmp_path: Path) -> None:
    flags = {"sample": SAMPLE, "out": tmp_path / "raw.parquet", "summary": tmp_path / "raw.json"}
    flags["benchmarks-out"] = tmp_path / "benchmarks"
    cli.run(collect, [part for flag, path in flags.items() for part in (f"--{flag}", str(path))])
    run(tmp_path, tmp_path / "raw.parquet")
    made = list(store.iter_pairs(store.read_pairs(tmp_path / "out.parquet")))
    summary = store.read_json(tmp_path / "summary.json")
    assert (summary["engine"], summary["pairs"], summary["rows"], len(made)) == ("memory", 336, 3696, 3696)
    assert {*map(str, summary["languages"].values())} == {
        str({"translated": 336, "missing": 0, "answers_lost": 0, "negatives_lost": 0})
    }
    assert made[:336] == list(store.iter_pairs(store.read_pairs(tmp_path / "raw.parquet")))
    assert len({(one.id, one.lang) for one in made}) == 3696
    assert len({(one.id, one.passage_id) for one in made}) == 336
    assert all(one.answer in one.passage for one in made)
    before = (tmp_path / "out.parquet").read_bytes()
    run(tmp_path, tmp_path / "raw.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == before


BAD_MEMORIES = {
    "a.jsonl": ('{"en": "x", "de": "y"}\n{"de": "y"}\n', ["a.jsonl:2", "no 'en' text"]),
    "b.jsonl": ('{"en": "x", "de": 3}\n', ["b.jsonl:1", "'de' wants text, got 3"]),
    "c.jsonl": ('{"en": "x"}\n', ["c.jsonl", "no unit"]),
    "d.tmx": ("<tmx><body><tu>", ["d.tmx:1", "broken XML"]),
    "e.xliff": ("x", ["e.xliff", ".tmx or a .jsonl"]),
}


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: list[str], **changes: object) -> None:
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, tmp_path / "raw.parquet", **changes)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.splitlines()) == 1, error
    assert all(part in error for part in wanted), error
    assert not (tmp_path / "out.parquet").exists()
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("name", BAD_MEMORIES)
def test_a_bad_memory_is_one_line(name, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, wanted = BAD_MEMORIES[name]
    store.write_pairs(tmp_path / "raw.parquet", [pair()])
    (tmp_path / name).write_text(text, encoding="utf-8")
    refused(tmp_path, capsys, wanted, memories=[str(tmp_path / name)])


def test_bad_samples_and_languages_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.write_pairs(tmp_path / "raw.parquet", [pair()])
    refused(tmp_path, capsys, ["no 'fr'", "it has ar, de"], languages=["de", "fr"])
    refused(tmp_path, capsys, ["no row in 'de'", "memory", "none of the 1 pairs"], languages=["de"])
    refused(tmp_path, capsys, ["gone.jsonl", "not found"], memories=[str(tmp_path / "gone.jsonl")])
    (tmp_path / "pairs").mkdir()
    row = '{"id": "%s", "question": "q", "passage": "p", "answer": "a"}\n'
    for lang, own in (("en", "1"), ("de", "2")):
        (tmp_path / "pairs" / f"{lang}.jsonl").write_text(row % own, encoding="utf-8")
    refused(tmp_path, capsys, ["de.jsonl:1", "id '2' is not in"], sample=tmp_path)
