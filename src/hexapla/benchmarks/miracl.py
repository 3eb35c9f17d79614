"""Benchmarks in MIRACL format (Zhang et al. 2023, arXiv 2210.09984): a language's corpus, TREC judgements.

There are two layouts, which differ in their folders:

- as published: `miracl-corpus-v1.0-<lang>/docs-*.jsonl.gz` (docid, title, text), and under
  `miracl-v1.0-<lang>/` the files `topics/topics.miracl-v1.0-<lang>-<split>.tsv` (id, text) and
  `qrels/qrels.miracl-v1.0-<lang>-<split>.tsv` (topic, Q0, docid, grade);
- MTEB's mirrors on the hub (MIRACLRetrieval, MIRACLRetrievalHardNegatives): Parquet in
  `<lang>-corpus/` (_id or id, title, text), `<lang>-queries/` (_id or id, text) and `<lang>-qrels/`
  (query-id, corpus-id, score), a file's name beginning with its split.

A corpus has up to 33 million passages, so it is streamed: topics and judgements are in memory, passages
never. A passage's text is its title and its text with a space in between, as in MTEB, so that figures can
be compared with those of its leaderboard.
"""

import gzip
import hashlib
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hexapla.io import readers
from hexapla.schema import UNFOUND, UserError

_log = logging.getLogger(__name__)

_FOLDER = re.compile(r"miracl-(?:corpus-)?v1\.0-([a-z]{2,3})|([a-z]{2,3})-(?:corpus|queries|qrels)")
_WHOLE = re.compile(r"-?[0-9]+(?:\.0+)?")


class Topic(NamedTuple):
    id: str
    text: str


class Passage(NamedTuple):
    id: str
    text: str
    where: str
    """File and line, or file and row."""


class JudgedBenchmark(NamedTuple):
    """One language of a benchmark: its topics, what is relevant for them, and the files of its passages."""

    lang: str
    topics: list[Topic]
    """Those that have a relevant passage, in the file's order."""
    relevant: dict[str, dict[str, int]]
    """By topic, then by passage: the grade, 1 or more; in the order of the judgements."""
    skipped_topics: int
    """Topics without a relevant passage; no measure can say anything about them."""
    folder: Path
    corpus: tuple[Path, ...]
    """The corpus' files, in their natural order: docs-10 after docs-2."""


# --- files -------------------------------------------------------------------------------------------


def languages(folder: Path) -> tuple[str, ...]:
    """The languages of which the folder holds something, sorted; none if it is not in MIRACL's format."""
    if not folder.is_dir():
        return ()
    found = (_FOLDER.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return tuple(sorted({match[1] or match[2] for match in found if match}))


def _files(folder: Path, lang: str, split: str) -> tuple[list[Path], list[Path], tuple[Path, ...]]:
    """The files of the topics, the judgements and the corpus."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such benchmark folder")
    held = languages(folder)
    if not held:
        raise UserError(
            f"{folder}: not MIRACL format; wants miracl-v1.0-<lang> and miracl-corpus-v1.0-<lang>, "
            "or <lang>-corpus, <lang>-queries and <lang>-qrels"
        )
    if lang not in held:
        raise UserError(f"{folder}: language '{lang}' is missing; it holds {', '.join(held)}")
    own = folder / f"miracl-v1.0-{lang}"
    corpus = folder / f"miracl-corpus-v1.0-{lang}"
    if own.is_dir() or corpus.is_dir():
        name = f"miracl-v1.0-{lang}-{split}.tsv"
        topics, qrels = (_matching(own / kind, f"{kind}.{name}") for kind in ("topics", "qrels"))
        return topics, qrels, tuple(_matching(corpus, "docs-*.jsonl.gz"))
    shards = f"{split}[-.]*parquet"
    topics, qrels = (_matching(folder / f"{lang}-{kind}", shards) for kind in ("queries", "qrels"))
    corpus = folder / f"{lang}-corpus"
    # A corpus may be of no split; topics of another split would be other topics.
    return topics, qrels, tuple(_matching(corpus, shards if any(corpus.glob(shards)) else "*.parquet"))


def _matching(folder: Path, pattern: str) -> list[Path]:
    """At least one file, in natural order."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not found; download the whole language")
    if found := sorted(folder.glob(pattern), key=_natural):
        return found
    others = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6]) or "nothing"
    raise UserError(f"{folder}: holds no {pattern}, but {others}")


def _natural(file: Path) -> list[Any]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", file.name))]


def _rows(
    files: Iterable[Path], columns: Sequence[str] = (), separator: str | None = None
) -> Iterator[readers.Row]:
    """Rows of Parquet, of gzipped JSONL, or of text with the named columns (None: parted by spaces)."""
    for file in files:
        if file.suffix == ".parquet":
            yield from readers.read_rows(file, "parquet")
        elif file.suffix == ".gz":
            yield from ((where, readers.json_object(where, line)) for where, line in _lines(file))
        else:
            for where, line in _lines(file):
                fields = line.rstrip("\r\n").split(separator)
                if len(fields) != len(columns):
                    raise UserError(f"{where}: has {len(fields)} fields, wants {', '.join(columns)}")
                yield where, dict(zip(columns, fields, strict=True))


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines that hold something, each with its place."""
    if file.stat().st_size == 0:
        raise UserError(f"{file}: empty file")
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}:{number}", line
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{file}: broken or truncated gzip ({error}); download it again") from None


# --- columns -------------------------------------------------------------------------------------


def _value(where: str, row: Mapping[str, Any], *columns: str) -> Any:
    """The value of the first of these columns that the row has."""
    for column in columns:
        if column in row:
            return row[column]
    raise UserError(f"{where}: no column '{columns[0]}' (it has {', '.join(map(str, row)) or 'none'})")


def _identifier(where: str, row: Mapping[str, Any], *columns: str) -> str:
    """The id in the first of these columns that the row has; a passage's by default."""
    held = _value(where, row, *(columns or ("docid", "_id", "id")))
    if isinstance(held, int) and not isinstance(held, bool):
        return str(held)
    if not isinstance(held, str) or not held:
        raise UserError(f"{where}: the id is {held!r}, wants text")
    return _utf8(where, held)


def _text(where: str, row: Mapping[str, Any], column: str, *, required: bool = False) -> str:
    """A column's text; empty only where it is not required."""
    held = _value(where, row, column)
    held = "" if held is None else held
    if not isinstance(held, str):
        raise UserError(f"{where}: column '{column}' holds {type(held).__name__}, wants text")
    if required and not held.strip():
        raise UserError(f"{where}: column '{column}' is empty; fill it or leave the row out")
    return _utf8(where, held)


def _utf8(where: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: holds half of a surrogate pair; mend the text") from None
    return text


# --- topics and judgements -----------------------------------------------------------------------


def load(folder: Path, lang: str, split: str = "dev") -> JudgedBenchmark:
    """Read topics and judgements of a language, and find its corpus; `passages` reads that.

    Raises:
        UserError: folder, language, split or a file is missing, or a line does not fit; the message
            names file and line.
    """
    topics_from, judgements_from, corpus = _files(folder, lang, split)
    texts: dict[str, str] = {}
    for where, topic, text in _topics(topics_from):
        if topic in texts:
            raise UserError(f"{where}: topic '{topic}' occurs twice; leave one out")
        texts[topic] = text
    if not texts:
        raise UserError(f"{topics_from[0]}: holds no topics")
    judged: dict[str, dict[str, int]] = {}
    for where, topic, passage, grade in _judgements(judgements_from):
        if judged.setdefault(topic, {}).setdefault(passage, grade) != grade:
            raise UserError(f"{where}: passage '{passage}' has two grades for topic '{topic}'; keep one")
    if strangers := [topic for topic in judged if topic not in texts]:
        _log.warning(
            "%s: judgements for %d topics that do not exist, '%s' for one, are left out",
            judgements_from[0], len(strangers), strangers[0],
        )  # fmt: skip
    kept = {t: {p: g for p, g in judged.get(t, {}).items() if g > 0} for t in texts}
    topics = [Topic(t, text) for t, text in texts.items() if kept[t]]
    skipped = len(texts) - len(topics)
    if not topics:
        raise UserError(f"{judgements_from[0]}: no topic has a relevant passage (a grade above 0)")
    if skipped:
        _log.warning("%s: %d topics have no relevant passage and are left out", topics_from[0], skipped)
    return JudgedBenchmark(lang, topics, {t.id: kept[t.id] for t in topics}, skipped, folder, corpus)


def _topics(files: Iterable[Path]) -> Iterator[tuple[str, str, str]]:
    for where, row in _rows(files, ("id", "text"), "\t"):
        yield where, _identifier(where, row), _text(where, row, "text", required=True)


def _judgements(files: Iterable[Path]) -> Iterator[tuple[str, str, str, int]]:
    for where, row in _rows(files, ("query-id", "Q0", "corpus-id", "score"), None):
        grade = str(_value(where, row, "score"))
        # The mirror may hold a float.
        if not _WHOLE.fullmatch(grade):
            raise UserError(f"{where}: the grade is '{grade}', wants a whole number")
        yield (
            where,
            _identifier(where, row, "query-id"),
            _identifier(where, row, "corpus-id"),
            int(float(grade)),
        )


# --- passages ------------------------------------------------------------------------------------


def passages(judged: JudgedBenchmark) -> Iterator[Passage]:
    """The corpus in file order, one at a time.

    A passage may lack title or text, not both.

    Raises:
        UserError: a file is broken or truncated, a row lacks a column or has no text, or there is none.
    """
    count = 0
    for where, row in _rows(judged.corpus):
        title, text = (_text(where, row, column) for column in ("title", "text"))
        whole = f"{title} {text}".strip() if title else text.strip()
        if not whole:
            raise UserError(f"{where}: both title and text are empty; fill one or leave the passage out")
        count += 1
        yield Passage(_identifier(where, row), whole, where)
    if not count:
        raise UserError(f"{judged.corpus[0].parent}: the corpus is empty")


def batches(stream: Iterable[Passage], size: int) -> Iterator[list[Passage]]:
    rest = iter(stream)
    while batch := list(islice(rest, size)):
        yield batch


class Ids:
    """What must be remembered of a corpus that is streamed: 8 bytes a passage, 16 while runs merge.

    A passage is its position in the stream, which is what a search returns. Only relevant passages keep their
    ids. All others have a 64-bit hash, in sorted runs that double like a binary counter, to find ids that occur
    twice. Where a hash occurs again, the corpus is read once more, so that two ids that merely share a hash
    (chance 3e-5 with 33 million passages) are not taken for one.
    """

    def __init__(self, judged: JudgedBenchmark) -> None:
        self.count = 0
        self.positions: dict[str, int] = {}
        """Positions of the relevant passages that have been read so far."""
        self._judged = judged
        self._wanted = {passage for each in judged.relevant.values() for passage in each}
        self._runs: list[np.ndarray] = []

    def add(self, batch: Sequence[Passage]) -> None:
        """Take the next passages of the stream; batches of a thousand and more are quick.

        Raises:
            UserError: a passage's id occurred before; the message names both places.
        """
        digests = b"".join(hashlib.blake2b(p.id.encode(), digest_size=8).digest() for p in batch)
        hashes = np.frombuffer(digests, dtype=np.uint64)
        met = np.ones(len(hashes), dtype=np.bool_)
        met[np.unique(hashes, return_index=True)[1]] = False
        for run in self._runs:
            met |= run[np.minimum(np.searchsorted(run, hashes), len(run) - 1)] == hashes
        for again in np.flatnonzero(met).tolist():
            self._refuse_twin(batch[again])
        for number, passage in enumerate(batch, self.count):
            if passage.id in self._wanted:
                self.positions[passage.id] = number
        self.count += len(batch)
        run = np.sort(hashes)
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        self._runs.append(run)

    def _refuse_twin(self, passage: Passage) -> None:
        before = next(other.where for other in passages(self._judged) if other.id == passage.id)
        if before != passage.where:
            raise UserError(
                f"{passage.where}: passage id '{passage.id}' occurs twice, first at {before}; leave one out"
            )

    def missing(self) -> list[str]:
        """Relevant passages that the whole corpus did not have; warns when there are any.

        They stay relevant and are never found, as in TREC: leaving them out would raise the figures.
        """
        lost = sorted(self._wanted - self.positions.keys())
        if lost:
            _log.warning(
                "%s (%s): of %d relevant passages %d are not in the corpus, '%s' for one: never found",
                self._judged.folder, self._judged.lang, len(self._wanted), len(lost), lost[0],
            )  # fmt: skip
        return lost


def survey(judged: JudgedBenchmark) -> Ids:
    """Read the whole corpus once, so that its mistakes are found before a passage is encoded.

    About 6 microseconds a passage: 3 minutes for the largest. Progress bars take its `count`.
    """
    ids = Ids(judged)
    for batch in batches(passages(judged), 8192):
        ids.add(batch)
    ids.missing()
    return ids


def ranks(judged: JudgedBenchmark, ids: Ids, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each topic's relevant passages among its hits.

    Args:
        judged: the benchmark.
        ids: has met the whole corpus.
        hits: int64 [topics, k], positions in the corpus, best first.

    Returns:
        Ranks, int64 [topics, relevant]: from 1; `UNFOUND` beyond k or not in the corpus; 0 pads.
        Grades, int64 of the same shape.
    """
    if len(hits) != len(judged.topics):
        raise UserError(
            f"{judged.folder} ({judged.lang}): hits for {len(hits)} topics, it has {len(judged.topics)}"
        )
    shape = (len(hits), max(map(len, judged.relevant.values())))
    found, grades = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, (topic, line) in enumerate(zip(judged.topics, hits.tolist(), strict=True)):
        rank = {position: number for number, position in enumerate(line, 1)}
        for column, (passage, grade) in enumerate(judged.relevant[topic.id].items()):
            found[row, column] = rank.get(ids.positions.get(passage, -1), UNFOUND)
            grades[row, column] = grade
    return found, grades
