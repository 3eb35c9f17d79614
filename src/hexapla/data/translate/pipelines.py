"""A chain of live programs that texts go through one after another, as shell pipes do it: `a | b | c`.

Each text ends with a NUL, on which every program writes out what it holds. What kills a program or
makes it wait for ever costs that text, not the others.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import IO

_CHUNK = 1 << 16
_GRACE = 0.1
"""Seconds from a program's last output to its end."""


class Pipeline:
    """Started with the first text, and again whenever it broke; `close` ends it."""

    def __init__(self, commands: Sequence[Sequence[str]], *, end: str, first: str, patience: float) -> None:
        """Remember what to start.

        Args:
            commands: the programs, each with its arguments.
            end: put behind every text with its number in place of {}, such as '[{}]', and left as it is by
                the programs. An answer without it is none: some of them end a text when they should not.
            first: a text that each new chain gets before others, whose answer is dropped.
            patience: seconds without an answer after which the chain is taken to be stuck.
        """
        self._commands, self._end, self._first, self._patience = commands, end, first, patience
        self._programs: list[subprocess.Popen[bytes]] = []
        self._owner = 0

    def ask(self, texts: Sequence[str]) -> list[str | None]:
        """What comes out for each; None for a text, asked twice, on which the chain dies or gets stuck.

        Raises:
            RuntimeError: the programs are being killed, which is no fault of a text's.
            OSError: they can't be started.
        """
        made: list[str | None] = []
        again = False
        while True:
            before = len(made)
            if not self._programs:
                self._start()
            made += self._answers(texts, before)
            if len(made) == len(texts):
                return made
            # It broke on the next text, or somebody killed it: which, is seen when it is asked again.
            twice = again and len(made) == before
            killed = twice and self._killed()
            self.close()
            if killed:
                raise RuntimeError(f"{self._label}: programs are being killed; the memory may not suffice")
            if twice:
                made.append(None)
                again = False
            else:
                again = True

    def close(self) -> None:
        if self._owner != os.getpid():  # a forked process has copies of what belongs to another
            return
        for program in self._programs:
            program.kill()
        for program in self._programs:
            program.wait()
            for stream in (program.stdin, program.stdout):
                if stream:
                    stream.close()
        self._programs = []

    def _killed(self) -> bool:
        """Whether one was by somebody else, which is to be asked before they are closed."""
        time.sleep(_GRACE)
        return any(program.poll() == -signal.SIGKILL for program in self._programs)

    @property
    def _label(self) -> str:
        return f"{self._commands[0][0]} | ..."

    def _start(self) -> None:
        try:
            self._launch()
            if not list(self._answers([self._first], 0)):
                raise RuntimeError(f"{self._label}: gives no answer")
        except BaseException:  # a part of a chain would give answers too
            self.close()
            raise

    def _launch(self) -> None:
        # The programs take bytes for letters by the locale.
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        given: IO[bytes] | int = subprocess.PIPE
        self._owner = os.getpid()
        for command in self._commands:
            program = subprocess.Popen(  # noqa: S603 - of the mode files of an installed apertium
                command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
            if not isinstance(given, int):
                given.close()  # or the program before would not see it when this one dies
            assert program.stdout is not None
            self._programs.append(program)
            given = program.stdout
        os.set_blocking(self._ends()[0], False)

    def _ends(self) -> tuple[int, int]:
        """Where the chain takes texts, and where it gives them."""
        first, last = self._programs[0].stdin, self._programs[-1].stdout
        assert first is not None
        assert last is not None
        return first.fileno(), last.fileno()

    def _answers(self, texts: Sequence[str], start: int) -> Iterator[str]:
        """To the texts from `start` on, as many as come."""
        ends = [self._end.format(number) for number in range(start, len(texts))]
        told = (f"{text}{end}\0" for text, end in zip(texts[start:], ends, strict=True))
        for answer, end in zip(self._replies("".join(told).encode(), len(ends)), ends, strict=False):
            if not answer.endswith(end):
                return
            yield answer.removesuffix(end)

    def _replies(self, told: bytes, wanted: int) -> Iterator[str]:
        """What the chain ends with a NUL, at most `wanted` times, until it ends itself or gets stuck."""
        entry, output = self._ends()
        rest, held = memoryview(told), b""
        while wanted > 0:
            ready, room, _ = select.select([output], [entry] if rest else [], [], self._patience)
            if not ready and not room:
                return
            if room:
                try:
                    rest = rest[os.write(entry, rest[:_CHUNK]) :]
                except BrokenPipeError:
                    return
            if ready:
                new = os.read(output, _CHUNK)
                *whole, held = (held + new).split(b"\0")
                wanted -= len(whole)
                yield from (reply.decode(errors="replace") for reply in whole)
                if not new:
                    return
