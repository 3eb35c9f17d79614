"""Chains of programs: answers in place, whatever dies or gets stuck on the way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hexapla.data.translate import pipelines
from hexapla.data.translate.pipelines import Pipeline

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

    monkeypatch.setattr(pipelines.subprocess, "Popen", second_fails)
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
