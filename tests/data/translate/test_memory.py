"""The memory gives what it holds, in its order, and refuses what it can't hold."""

import json
from pathlib import Path

import pytest

from conftest import SAMPLE
from hexapla.data.translate import memory
from hexapla.data.translate.memory import TranslationMemory
from hexapla.schema import UserError
from hexapla.text import sentences


def test_memory_keeps_alternatives_in_order() -> None:
    memory = TranslationMemory(
        [{"en": "May", "de": "Mai"}, {"en": "May", "de": "Im Mai", "es": "Mayo"}, {"en": "May", "de": "Mai "}]
    )
    assert memory.translate(["May", "may", ""], "de") == [("Mai", "Im Mai"), (), ()]
    assert memory.translate(["May"], "es") == [("Mayo",)]


def test_memory_ignores_spaces_and_composition_only() -> None:
    memory = TranslationMemory([{"en": "caf\u00e9  au\nlait", "de": " Milchkaffee "}])
    assert memory.translate([" cafe\u0301 au lait", "Caf\u00e9 au lait"], "de") == [("Milchkaffee",), ()]


def test_memory_puts_a_passage_together_from_its_sentences() -> None:
    units = [
        {"en": "It sleeps.", "de": "Es schläft."},
        {"en": "It runs.", "de": "Es rennt.", "zh": "跑。"},
        {"en": "It sleeps. It runs.", "es": "Duerme y corre."},
    ]
    memory = TranslationMemory(units)
    assert memory.translate(["It runs.\n\nIt sleeps.  It runs."], "de") == [
        ("Es rennt.\n\nEs schläft.  Es rennt.",)
    ]
    assert memory.translate(["It sleeps. It runs."], "es") == [("Duerme y corre.",)]
    assert memory.translate(["It sleeps. It runs.", "It runs. It runs."], "zh") == [(), ("跑。跑。",)]


def test_identity_of_a_memory_is_of_its_units_in_a_language() -> None:
    units = [{"en": "May", "de": "Mai", "es": "Mayo"}, {"en": "June", "de": "Juni"}]
    one, same = TranslationMemory(units), TranslationMemory(reversed(units))
    assert one.identity("de") == same.identity("de") != one.identity("es")
    more = TranslationMemory([*units, {"en": "May", "de": "Wonnemonat"}])
    assert (more.identity("de") == one.identity("de"), more.identity("es") == one.identity("es")) == (
        False,
        True,
    )
    assert TranslationMemory([*units, {"en": "May", "es": "El mayo"}]).identity("es") != one.identity("es")


def test_identity_is_also_of_what_splits_passages(monkeypatch) -> None:
    memory = TranslationMemory([{"en": "May", "de": "Mai"}])
    before = memory.identity("de")
    monkeypatch.setattr(sentences, "identity", lambda: "another")
    assert memory.identity("de") != before


def test_memory_refuses_a_language_that_it_has_not() -> None:
    with pytest.raises(UserError, match=r"no 'fr' \(it has de\)"):
        TranslationMemory([{"en": "May", "de": "Mai", "fr": " "}]).check(["de", "fr"])


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
    known = memory.read_memory(sample=SAMPLE, memories=[str(tmx), str(own)])
    assert known.translate([first["answer"]], "de")[0][0] == "Meine"
    assert len(known.translate([first["answer"]], "de")[0]) > 1
    assert known.translate(["hello"], "sw") == [("habari",)]


# --- what is no memory ------------------------------------------------------------------------------


BAD_MEMORIES = {
    "a.jsonl": ('{"en": "x", "de": "y"}\n{"de": "y"}\n', ["a.jsonl:2", "no 'en' text"]),
    "b.jsonl": ('{"en": "x", "de": 3}\n', ["b.jsonl:1", "'de' wants text, got 3"]),
    "c.jsonl": ('{"en": "x"}\n', ["c.jsonl", "no unit"]),
    "d.tmx": ("<tmx><body><tu>", ["d.tmx:1", "broken XML"]),
    "e.xliff": ("x", ["e.xliff", ".tmx or a .jsonl"]),
    "f.jsonl": (None, ["f.jsonl", "not found"]),
    "g.jsonl": ('{"en": "x", "id": "y"}\n{"en": "x", "de": "y", "id": "17"}\n', ["g.jsonl:2", "Indonesian"]),
    "h.jsonl": ('{"en": "x", "de": "y", "id": 17}\n', ["h.jsonl:1", "Indonesian", "leave row numbers out"]),
}


@pytest.mark.parametrize("name", BAD_MEMORIES)
def test_a_bad_memory_is_one_line(name, tmp_path: Path) -> None:
    text, wanted = BAD_MEMORIES[name]
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        memory.read_memory(sample=SAMPLE, memories=[str(tmp_path / name)])
    assert len(str(refused.value).splitlines()) == 1
    assert all(part in str(refused.value) for part in wanted)


def test_a_sample_whose_rows_have_no_english_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    row = '{"id": "%s", "question": "q", "passage": "p", "answer": "a"}\n'
    for lang, own in (("en", "1"), ("de", "2")):
        (tmp_path / "pairs" / f"{lang}.jsonl").write_text(row % own, encoding="utf-8")
    with pytest.raises(UserError, match="de.jsonl:1: id '2' is not in"):
        memory.read_memory(sample=tmp_path, memories=[])
