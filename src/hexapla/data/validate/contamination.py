"""The benchmarks' texts, which may not stand in the training data, and what of them was found there."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.benchmarks import lareqa, miracl, miracl_files
from hexapla.data.validate.overlap import Index, Kind, Match
from hexapla.io import cache, hashing, readers, tables
from hexapla.text import normalize

NOT_SEEN = (
    "Texts of the same article or document as a benchmark's: only equal and nearly equal texts are found.",
    "Translations of a benchmark's texts into languages that it does not have, and paraphrases in any.",
    "Texts that the encoder saw in its pretraining.",
)
"""What no comparison of texts here can find, for reports."""

_SHOWN = 200
"""Characters of a benchmark's text that a report shows."""


class Text(NamedTuple):
    benchmark: str
    lang: str
    kind: Kind
    text: str


class Hit(NamedTuple):
    """A text of the training data that is a benchmark's, or nearly."""

    row: int
    """Position of the row in its part."""
    id: str | None
    lang: str | None
    column: str
    """`question`, `passage` or `negatives`."""
    overlap: float
    equal: bool
    benchmark: str
    benchmark_language: str
    benchmark_text: str
    """Its beginning."""

    def __str__(self) -> str:
        benchmark = f"{self.benchmark} ({self.benchmark_language})"
        return f"{self.column} has {self.overlap:.0%} in common with {benchmark}: {self.benchmark_text}"


class Known(NamedTuple):
    """All benchmarks' texts, ready to look others up in."""

    texts: list[Text]
    lookup: Index


# --- the benchmarks' texts -------------------------------------------------------------------------


def gather(folders: Mapping[str, Path]) -> Path:
    """A file with all questions and passages of the benchmarks, by name and folder; see `known`.

    Of MIRACL, whose passages are a whole Wikipedia, only the relevant ones. It is kept in the cache, since
    reading a large corpus takes minutes. Every language of a benchmark, not only those that are judged: a
    model that saw one knows it.
    """
    named = [f"{name} {hashing.sha256(folder)}" for name, folder in folders.items()]
    own = cache.code(lareqa, readers, miracl_files, miracl, cache, sys.modules[__name__])
    key = hashlib.sha256("\n".join([own, *named]).encode()).hexdigest()
    file = cache.entry("validate", key)
    if not file.is_file():
        texts = [
            Text(name, *found) for name, folder in folders.items() for found in dict.fromkeys(_read(folder))
        ]
        tables.write_columns(file, {name: [text[i] for text in texts] for i, name in enumerate(Text._fields)})
    return file


def _read(folder: Path) -> Iterator[tuple[str, Kind, str]]:
    """Language, kind and text: questions and what answers them; of LAReQA's every sentence and paragraph."""
    if lareqa.detect(folder) == "lareqa":
        benchmark = lareqa.load(folder)
        for question in benchmark.questions:
            yield question.lang, "question", question.text
        for candidate in benchmark.candidates:
            yield candidate.lang, "passage", candidate.text
            yield candidate.lang, "passage", candidate.context
        return
    for lang in miracl.languages(folder):
        judged = miracl.load(folder, lang)
        for topic in judged.topics:
            yield lang, "question", topic.text
        relevant = {passage for each in judged.relevant.values() for passage in each}
        for passage in miracl.passages(judged):
            if passage.id in relevant:
                yield lang, "passage", passage.text


@lru_cache(maxsize=1)
def known(file: Path, least: float) -> Known:
    """What `gather` wrote; texts are near from an overlap of `least` on. Some seconds, once a process."""
    texts = _texts(file)
    keys = normalize.normalize_texts([text.text for text in texts])
    held = [(text, key) for text, key in zip(texts, keys, strict=True) if key]
    return Known(
        [text for text, _ in held],
        Index([key for _, key in held], [text.kind for text, _ in held], least),
    )


def counts(file: Path) -> dict[str, int]:
    """How many different texts each benchmark has, by name."""
    texts = _texts(file)
    keys = normalize.normalize_texts([text.text for text in texts])
    different = {(text.benchmark, key) for text, key in zip(texts, keys, strict=True) if key}
    return {
        name: sum(benchmark == name for benchmark, _ in different)
        for name in dict.fromkeys(text.benchmark for text in texts)
    }


def _texts(file: Path) -> list[Text]:
    columns: dict[str, Any] = tables.read_columns(file)
    return [Text(*fields) for fields in zip(*(columns[name] for name in Text._fields), strict=True)]


# --- what was found ---------------------------------------------------------------------------------


class Owner(NamedTuple):
    """Whose text it is: the position of the row in its part, its id and its language."""

    row: int
    id: str | None
    lang: str | None


def hits(known: Known, column: str, keys: Sequence[str], owners: Sequence[Owner]) -> list[tuple[int, Hit]]:
    """All `keys`, normalised texts of `column`, that are a benchmark's, or nearly, by position.

    Of a benchmark's texts the one with the largest overlap, of equal ones the first.
    """
    best: dict[tuple[int, str], Match] = {}
    for match in known.lookup.find(keys, "question" if column == "question" else "passage"):
        where = (match.text, known.texts[match.known].benchmark)
        if where not in best or match[2:] > best[where][2:]:
            best[where] = match
    found = []
    for (number, benchmark), match in best.items():
        text = known.texts[match.known]
        row, id_, lang = owners[number]
        overlap, begun = round(match.overlap, 4), _begun(text.text)
        hit = Hit(row, id_, lang, column, overlap, match.equal, benchmark, text.lang, begun)
        found.append((number, hit))
    return found


def _begun(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
