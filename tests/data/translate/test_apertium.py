"""Apertium itself, English to Spanish; skipped where it is not installed, but for what is said then."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import SAMPLE
from hexapla.data.translate import apertium
from hexapla.data.translate.apertium import Apertium, Pipeline
from hexapla.io import readers
from hexapla.schema import UserError

MODE = Path("/usr/share/apertium/modes/eng-spa.mode")
here = pytest.mark.skipif(
    not (shutil.which("apertium") and MODE.is_file()), reason="apt-get install apertium apertium-eng-spa"
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Apertium]:
    made = Apertium(2, patience=10.0)
    yield made
    made.close()


def sentences() -> list[str]:
    rows = [row for _, row in readers.read_rows(SAMPLE / "pairs" / "en.jsonl", "jsonl")]
    texts = [row[key] for row in rows for key in ("question", "passage")]
    return list(dict.fromkeys(part for text in texts for part in re.split(r"(?<=[.!?]) ", text)))


@here
def test_it_translates(engine) -> None:
    engine.check(["es"])
    assert engine.translate(["Who painted the house?", "The house is red.\n\nIt is old.", ""], "es") == [
        ("Quién pintó la casa?",), ("La casa es roja.\n\nEs viejo.",), (),
    ]  # fmt: skip


@here
def test_the_same_as_apertiums_own_command(engine) -> None:
    asked = [text for text in sentences()[:300:30] if "  " not in text]
    wanted = []
    for text in asked:
        # After the same first words; without them it tags some words otherwise.
        given, call = f"{apertium._FIRST}\n\n{text}", ["apertium", "-u", "eng-spa"]
        done = subprocess.run(call, input=given, capture_output=True, text=True, timeout=30, check=True)
        wanted.append(re.sub(" +", " ", done.stdout.split("\n\n")[1]).strip())
    assert [new for (new,) in engine.translate(asked, "es")] == wanted


@here
def test_neighbours_order_and_number_of_processes_do_not_matter(engine) -> None:
    texts = sentences()[:600]
    known = dict(zip(texts, engine.translate(texts, "es"), strict=True))
    shuffled = random.Random(1).sample(texts, len(texts))
    other = Apertium(1)
    assert other.translate(shuffled, "es") == [known[text] for text in shuffled]
    other.close()
    assert engine.translate(shuffled[:7], "es") == [known[text] for text in shuffled[:7]]


# Letters of scripts that its dictionaries lack, and all that the programs' format gives a meaning to.
FOREIGN = st.text(
    st.sampled_from(
        '東京日本はשלום😀🎉ไทย[]{}()^$/\\@<>#+*~_|&%"-–…•€°0123456789,;:. \n\t\u200b\u200d\u202e\u00a0'
    )
)


@here
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FOREIGN)
def test_what_has_no_translation_stays_to_the_letter(engine, text) -> None:
    assert engine.translate([text], "es") == ([(text,)] if text.strip() else [()])


MARKS = ["[1]", "{x}", "^", "$", "$b^", "<b>", "</b>", "\\n", "\\", "/", "@", "~", "[[", "]]", "[x]]", "😀"]


@here
@pytest.mark.parametrize("mark", [*MARKS, "東京", "^x/y<n>$", ".[]", "[3]"])
def test_marks_within_a_sentence_stay(engine, mark) -> None:
    ((new,),) = engine.translate([f"The house {mark} is red."], "es")
    assert mark in new
    assert ("casa" in new, "roj" in new) == (True, True)


@here
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_text_has_an_answer_and_none_is_moved(engine, texts) -> None:
    framed = [part for text in texts for part in ("The house is red.", text)]
    made = engine.translate(framed, "es")
    assert made[::2] == [("La casa es roja.",)] * len(texts)
    assert [bool(new) for new in made[1::2]] == [bool(text.strip()) and "\0" not in text for text in texts]


@here
def test_killed_programs_are_started_again(engine) -> None:
    texts = sentences()[:200]
    wanted = engine.translate(texts, "es")
    (pool,) = engine._pools.values()
    for _ in range(pool.qsize()):
        chain = pool.get()
        os.kill(random.Random(0).choice(chain._programs).pid, signal.SIGKILL)
        pool.put(chain)
    assert engine.translate(texts, "es") == wanted


@here
def test_identity_is_of_what_is_installed(engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine.identity("es")
    with monkeypatch.context() as patch:
        patch.setattr("hexapla.text.sentences.identity", lambda: "another")
        assert engine.identity("es") != one
    (tmp_path / "modes").mkdir()
    data = shutil.copy(MODE.parent.parent / "apertium-eng-spa" / "eng-spa.autopgen.bin", tmp_path)
    text = MODE.read_text(encoding="utf-8")
    old = re.search(r"'(\S*eng-spa.autopgen.bin)'", text)[1]
    for name in ("eng-spa", "en-ca"):
        (tmp_path / "modes" / f"{name}.mode").write_text(text.replace(old, data), encoding="utf-8")
    monkeypatch.setenv("APERTIUM_DATADIR", str(tmp_path))
    before = engine.identity("es")
    assert before != one
    apertium._contents.cache_clear()
    Path(data).write_bytes(b"other")
    assert engine.identity("es") != before
    engine.check(["es", "ca"])


@here
def test_a_pair_that_is_not_installed_or_not_there_is_one_line(engine, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APERTIUM_DATADIR", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install apertium apertium-eng-spa apertium-en-gl$"):
        engine.check(["es", "gl"])
    with pytest.raises(UserError, match=r"apertium has no 'de' \(it has ca, eo, es, gl\)"):
        engine.check(["es", "de"])


def test_without_apertium_the_line_to_run_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install apertium apertium-eng-spa"):
        Apertium()


# --- chains of programs --------------------------------------------------------------------------

# Answers a text with itself in capitals; dies of "die", waits for ever at "wait", breaks off at "half".
PROGRAM = """
import os, time
held = b""
while True:
    new = os.read(0, 4096)
    if not new:
        break
    *texts, held = (held + new).split(b"\\0")
    for text in texts:
        if b"die" in text:
            raise SystemExit(1)
        while b"wait" in text:
            time.sleep(1)
        out = (text if b"half" not in text else text[:2]).upper() + b"\\0"
        while out:
            out = out[os.write(1, out):]
"""
COMMANDS = [["cat", "-u"], [sys.executable, "-S", "-c", PROGRAM], ["cat"]]


@pytest.fixture
def chain() -> Iterator[Pipeline]:
    made = Pipeline(COMMANDS, end="[{}]", first="first", patience=1.0)
    yield made
    made.close()


def test_answers_are_in_place_and_none_is_the_first(chain) -> None:
    assert chain.ask([]) == []
    texts = [f"{n} e 日本\n" * (n % 5) for n in range(50)]
    assert chain.ask(texts) == [text.upper() for text in texts]
    assert chain.ask(["again"]) == ["AGAIN"]


def test_more_than_pipes_hold_goes_through(chain) -> None:
    texts = ["x" * 300_000, "y" * 300_000, "z"]
    assert chain.ask(texts) == [text.upper() for text in texts]


@pytest.mark.parametrize("bad", ["die", "wait", "half"])
def test_a_text_that_breaks_the_chain_costs_itself_alone(bad, chain) -> None:
    assert chain.ask(["a", bad, "b"]) == ["A", None, "B"]
    assert chain.ask(["d"]) == ["D"]


def test_several_texts_may_break_it(chain) -> None:
    assert chain.ask(["die", "half", "a", "b", "die"]) == [None, None, "A", "B", None]


@pytest.mark.parametrize("victim", range(3))
def test_a_killed_program_is_started_again_and_its_texts_redone(victim, chain) -> None:
    assert chain.ask(["a"]) == ["A"]
    before = chain._programs[victim].pid
    os.kill(before, signal.SIGKILL)
    assert chain.ask(["b", "c"]) == ["B", "C"]
    assert chain._programs[victim].pid != before


def test_a_closed_chain_has_no_programs_left(chain) -> None:
    chain.ask(["a"])
    programs = list(chain._programs)
    chain.close()
    assert all(program.poll() is not None for program in programs)
    assert chain.ask(["b"]) == ["B"]


def test_a_program_that_does_not_start_leaves_no_half_chain(chain, monkeypatch) -> None:
    popen, begun = subprocess.Popen, []

    def second_fails(command, **options):
        begun.append(command)
        if len(begun) == 2:
            raise OSError(11, "Resource temporarily unavailable")
        return popen(command, **options)

    monkeypatch.setattr(apertium.subprocess, "Popen", second_fails)
    with pytest.raises(OSError, match="temporarily"):
        chain.ask(["a"])
    assert not chain._programs
    assert chain.ask(["a"]) == ["A"]


@pytest.mark.parametrize("victim", range(3))
def test_programs_that_are_killed_again_and_again_are_no_fault_of_the_text(victim, monkeypatch) -> None:
    # The second program never answers "wait", so there is time to kill one while it is asked.
    chain = Pipeline(COMMANDS, end="[{}]", first="first", patience=20.0)
    answers = chain._answers

    def killing(texts, start):
        if texts == ["wait"]:
            os.kill(chain._programs[victim].pid, signal.SIGKILL)
        return answers(texts, start)

    monkeypatch.setattr(chain, "_answers", killing)
    with pytest.raises(RuntimeError, match=r"cat \| \.\.\.: programs are being killed; the memory"):
        chain.ask(["wait"])
    assert not chain._programs
    assert chain.ask(["a"]) == ["A"]
    chain.close()


def test_a_chain_that_never_answers_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="false .* no answer"):
        Pipeline([["false"], ["cat"]], end="[{}]", first="first", patience=1.0).ask(["a"])
