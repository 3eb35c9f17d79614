"""Machine translation by rules: Apertium (Forcada et al. 2011), a real translator of a few megabytes.

    apt-get install apertium apertium-eng-spa

A translation goes through a chain of small programs, which its mode file lists. Chains are kept alive:
to start one takes longer than a hundred sentences do.
"""

import functools
import hashlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from hexapla.data.translate.by_sentence import refuse_unsupported, sentence_identity, translate_by_sentence
from hexapla.io import hashing
from hexapla.parallel.tasks import threads
from hexapla.schema import UserError

PACKAGES = {
    "ca": "apertium-eng-cat",
    "eo": "apertium-eo-en",
    "es": "apertium-eng-spa",
    "gl": "apertium-en-gl",
}
"""Debian's packages that translate from English, by language."""

_CODES = {"cat": "ca", "epo": "eo", "glg": "gl", "spa": "es"}
"""Names of modes have codes of ISO 639-3 or 639-1; these are our codes for the former."""

_BLOCK = 64
"""Sentences that a chain gets at a time."""

_PATIENCE = 60.0

_FIRST = "I knew the worn one that was known, included, elected near a Marine Burns till it bore a span."
"""The tagger remembers the first words whose ambiguity it was not trained on, and tags some others differently
from then on. With such words at the start of every chain it always does, whatever comes before a text."""

_STOP, _END = ".", "[{}]"
"""What follows every text: the end of a sentence for the tagger, which `apertium-destxt` writes and
`apertium-retxt` takes away, and a blank with the text's number, which programs leave as it is."""


# --- chains of programs -------------------------------------------------------------------------

_CHUNK = 1 << 16
_GRACE = 0.1
"""Seconds from a program's last output to its end."""


class Pipeline:
    """A chain of live programs that texts go through one after another, as in a shell: `a | b | c`.

    Each text ends with a NUL, on which every program writes out what it holds. What kills a program, or makes it
    wait for ever, costs that text and no other. The chain starts with the first text, and again whenever it broke.

    The command `apertium -z -f none` starts the same programs and gives the same bytes. But a shell tells neither
    which program ended nor how: a text would count as one without translation when the memory ran out.
    """

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
        """Return what comes out for each text; None where the chain dies or gets stuck twice.

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
        """Return whether a program was killed from outside; only known before the chain is closed."""
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
        """Return the file numbers of the chain's input and output."""
        first, last = self._programs[0].stdin, self._programs[-1].stdout
        assert first is not None
        assert last is not None
        return first.fileno(), last.fileno()

    def _answers(self, texts: Sequence[str], start: int) -> Iterator[str]:
        """Give the answers to the texts from `start` on, as many as come."""
        ends = [self._end.format(number) for number in range(start, len(texts))]
        data = (f"{text}{end}\0" for text, end in zip(texts[start:], ends, strict=True))
        for answer, end in zip(self._replies("".join(data).encode(), len(ends)), ends, strict=False):
            if not answer.endswith(end):
                return
            yield answer.removesuffix(end)

    def _replies(self, data: bytes, wanted: int) -> Iterator[str]:
        """Give at most `wanted` answers, each of which ended with a NUL, until the chain ends or gets stuck."""
        entry, output = self._ends()
        rest, held = memoryview(data), b""
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


# --- the engine --------------------------------------------------------------------------------


class Apertium:
    """Translate by Apertium's modes from English; unknown words stay as they are."""

    name = "apertium"

    def __init__(self, processes: int = 0, *, patience: float = _PATIENCE) -> None:
        """Use `processes` chains of programs for a language; one without an answer for `patience` seconds is stuck.

        With 0 processes there is a chain for each thread that `tasks.threads` counts.

        Raises:
            UserError: it is not installed.
        """
        if not shutil.which("apertium"):
            raise UserError(
                "translate.engine: 'apertium' is not installed; apt-get install apertium "
                "apertium-eng-spa (each pair of languages is a package of its own)"
            )
        self._processes = processes or threads()
        self._patience = patience
        self._pools: dict[tuple[int, str], SimpleQueue[Pipeline]] = {}

    def identity(self, lang: str) -> str:
        return f"apertium {_versions()} {_contents(_modes()[lang])} {lang} {sentence_identity()}"

    def check(self, languages: Sequence[str]) -> None:
        known = {lang for lang in languages if lang in _modes()}
        missing = [PACKAGES[lang] for lang in languages if lang not in known and lang in PACKAGES]
        if missing and known.union(PACKAGES).issuperset(languages):
            raise UserError(
                f"translate.languages: apertium lacks a pair; apt-get install apertium {' '.join(missing)}"
            )
        refuse_unsupported(
            languages, {*_modes(), *PACKAGES}, "apertium", "take them off the list, or another engine"
        )
        programs = {command[0] for lang in languages for command in _commands(_modes()[lang])}
        if gone := [program for program in sorted(programs) if not shutil.which(program)]:
            raise UserError(
                f"translate.engine: apertium lacks its program '{gone[0]}'; apt-get install apertium "
                "lttoolbox apertium-lex-tools cg3"
            )

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        """Translate each text; brackets, tags, emoji and letters of other scripts stay."""
        return translate_by_sentence(texts, lang, lambda sentences: self._sentences(sentences, lang))

    def close(self) -> None:
        """End the chains; they start again with the next text."""
        for pool in self._pools.values():
            for _ in range(pool.qsize()):
                pipeline = pool.get()
                pipeline.close()
                pool.put(pipeline)

    def _sentences(self, sentences: list[str], lang: str) -> list[str | None]:
        pool = self._pool(lang)
        blocks = [sentences[start : start + _BLOCK] for start in range(0, len(sentences), _BLOCK)]

        def work(block: list[str]) -> list[str | None]:
            pipeline = pool.get()
            try:
                return _through(pipeline, block)
            finally:
                pool.put(pipeline)

        with ThreadPoolExecutor(self._processes) as workers:
            return [new for done in workers.map(work, blocks) for new in done]

    def _pool(self, lang: str) -> SimpleQueue[Pipeline]:
        # By process: one that was forked must not talk to the chains of the one that it came from.
        key = os.getpid(), lang
        if key not in self._pools:
            commands = _commands(_modes()[lang])
            pool: SimpleQueue[Pipeline] = SimpleQueue()
            for _ in range(self._processes):
                pipeline = Pipeline(commands, end=_END, first=_FIRST, patience=self._patience)
                weakref.finalize(self, pipeline.close)
                pool.put(pipeline)
            self._pools[key] = pool
        return self._pools[key]


def _through(pipeline: Pipeline, sentences: list[str]) -> list[str | None]:
    answers = pipeline.ask([_escaped(text) for text in sentences])
    return [
        None if answer is None else _plain(answer, text)
        for answer, text in zip(answers, sentences, strict=True)
    ]


# --- the stream format of apertium's programs -----------------------------------------------------


def _escaped(text: str) -> str:
    """Put a backslash before characters of the format, and turn '~', which programs drop, into a blank."""
    return re.sub(r"[\[\]{}^$/\\@<>]", r"\\\g<0>", text).replace("~", "[~]") + _STOP


def _plain(answer: str, text: str) -> str | None:
    new = re.sub(r"\\(.)|[\[\]]", r"\1", answer.removesuffix(_STOP), flags=re.DOTALL).strip()
    # A word that falls away, such as a pronoun, leaves its spaces.
    return (new if "  " in text else re.sub(" {2,}", " ", new)) or None


# --- what is installed ----------------------------------------------------------------------------


def _data() -> Path:
    program = shutil.which("apertium") or "/usr/bin/apertium"
    return Path(os.environ.get("APERTIUM_DATADIR") or Path(program).parent.parent / "share" / "apertium")


def _modes() -> dict[str, Path]:
    """Find, by language, the mode file that translates to it from English: en-es or eng-spa, no variants."""
    found = {}
    for file in sorted((_data() / "modes").glob("*.mode")):
        if names := re.fullmatch(r"(?:en|eng)-([a-z]{2,3})", file.stem):
            found[_CODES.get(names[1], names[1])] = file
    return found


def _commands(mode: Path) -> list[list[str]]:
    """Read the mode's programs, which flush at a NUL and leave unknown words unmarked."""
    words = shlex.shlex(mode.read_text(encoding="utf-8"), posix=True, punctuation_chars="|")
    words.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            commands.append([])
        elif word != "$2":  # would have the tagger show all readings
            commands[-1].append("-n" if word == "$1" else word)
    return [[program, "-z", *rest] for program, *rest in commands]


@functools.cache
def _contents(mode: Path) -> str:
    """Hash the mode, the files that it names, and the text that chains begin with."""
    digest = hashlib.sha256(mode.read_bytes() + _FIRST.encode())
    for word in (word for command in _commands(mode) for word in command[1:]):
        if Path(word).is_file():
            digest.update(f"{Path(word).name} {hashing.sha256(Path(word))}\n".encode())
    return digest.hexdigest()


@functools.cache
def _versions() -> str:
    """Return the versions of the translator and of the dictionaries' processor, which is another package."""
    calls = (["apertium", "-V"], ["lt-proc", "-v"])
    outs = [subprocess.run(call, capture_output=True, text=True, check=False) for call in calls]  # noqa: S603
    return ", ".join(out.stdout.strip() for out in outs)
