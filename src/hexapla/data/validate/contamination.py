"""Texts of the benchmarks in the training data: equal texts, and near ones by shared runs of characters.

A text's shingles are all its runs of `WIDTH` characters (Broder 1997, "On the resemblance and containment of
documents"), as 64-bit hashes; texts are compared by the sets of their shingles. A sample of the benchmarks'
shingles is indexed to find which texts may be near, and only those are compared by all their shingles.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from hexapla.benchmarks import lareqa, miracl
from hexapla.io import cache, hashing, tables
from hexapla.text import languages, normalize

FORMAT = 1
"""Part of the cache's key for the collected texts: raise it when `collect_texts` finds others than before."""

NOT_SEEN = (
    "Texts of the same article or document as a benchmark's: only equal and nearly equal texts are found.",
    "Translations of a benchmark's texts into languages that it does not have, and paraphrases in any.",
    "Texts that the encoder saw in its pretraining.",
)
"""What no comparison of texts here can find, for reports."""

Kind = Literal["question", "passage"]

WIDTH = 8
MIN_QUESTION_SHINGLES = 16
"""Shingles that two questions need to be near; shorter ones are found only when they are equal."""
MIN_PASSAGE_SHINGLES = 32
"""The same for a text that is part of a longer one: any shorter sentence may occur in two places by chance."""

_QUOTED_CHARS = 200
"""Characters of a benchmark's text that a report quotes."""
_INDEXED_SHARE = 4
"""One in this many shingles is indexed: enough of the fewest that count, for a quarter of the memory."""
_MAX_OWNERS = 64
"""A shingle of more texts than this does not say which text it is from, and is not indexed."""
_MIXER = np.uint64(0xD6E8FEB86659FD93)


# --- the benchmarks' texts -------------------------------------------------------------------------


class BenchmarkText(NamedTuple):
    benchmark: str
    lang: str
    kind: Kind
    text: str


class BenchmarkIndex(NamedTuple):
    """All texts of the benchmarks, ready to look others up in."""

    texts: list[BenchmarkText]
    ngrams: "NgramIndex"


def collect_texts(folders: Mapping[str, Path]) -> Path:
    """Return a file with all questions and passages of the benchmarks, for `load_index`.

    Every language of a benchmark counts, not only those that are evaluated: a model that saw one knows it.
    Of MIRACL, whose passages are a whole Wikipedia, only the relevant ones count. The file is kept in the
    cache, because reading a large corpus takes minutes.

    Args:
        folders: the benchmarks' folders by name.
    """
    named = [f"{name} {hashing.sha256(folder)}" for name, folder in folders.items()]
    key = hashlib.sha256(
        "\n".join([f"texts {FORMAT} {unicodedata.unidata_version}", *named]).encode()
    ).hexdigest()
    file = cache.entry("validate", key)
    if not file.is_file():
        texts = [
            BenchmarkText(name, *found)
            for name, folder in folders.items()
            for found in dict.fromkeys(_read_benchmark(folder))
        ]
        columns = {name: [text[i] for text in texts] for i, name in enumerate(BenchmarkText._fields)}
        tables.write_columns(file, columns)
    return file


def _read_benchmark(folder: Path) -> Iterator[tuple[str, Kind, str]]:
    """Yield language, kind and text of questions, and of passages that answer them or are sentences of LAReQA."""
    if lareqa.detect(folder) == "lareqa":
        benchmark = lareqa.load(folder)
        for question in benchmark.queries:
            yield question.lang, "question", question.text
        for candidate in benchmark.passages:
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


def _load_texts(file: Path) -> list[tuple[BenchmarkText, str]]:
    """Return the texts that `collect_texts` wrote, each with its normalized form, without empty ones."""
    columns = tables.read_columns(file)
    rows = zip(*(columns[name] for name in BenchmarkText._fields), strict=True)
    texts = [BenchmarkText(*fields) for fields in rows]
    keys = normalize.normalize_texts([text.text for text in texts])
    return [(text, key) for text, key in zip(texts, keys, strict=True) if key]


@lru_cache(maxsize=1)
def load_index(file: Path, min_overlap: float) -> BenchmarkIndex:
    """Index what `collect_texts` wrote; it takes some seconds, once a process.

    Args:
        file: the collected texts.
        min_overlap: the least overlap of a near match, see `NgramIndex`.
    """
    texts = _load_texts(file)
    ngrams = NgramIndex([key for _, key in texts], [text.kind for text, _ in texts], min_overlap)
    return BenchmarkIndex([text for text, _ in texts], ngrams)


def count_texts(file: Path) -> dict[str, int]:
    """Return how many different normalized texts each benchmark has, by name."""
    different = dict.fromkeys((text.benchmark, key) for text, key in _load_texts(file))
    return dict(Counter(benchmark for benchmark, _ in different))


# --- matches ---------------------------------------------------------------------------------------


class RowName(NamedTuple):
    """The row that a text belongs to."""

    row: int
    """The position in its part of the table."""
    id: str | None
    lang: str | None


class BenchmarkMatch(NamedTuple):
    """A text of the training data that is equal or near to a benchmark's."""

    row: int
    """The position of the row in its part."""
    id: str | None
    lang: str | None
    column: str
    """`question`, `passage` or `negatives`."""
    overlap: float
    equal: bool
    benchmark: str
    benchmark_language: str
    benchmark_text: str
    """The beginning of the benchmark's text."""

    def __str__(self) -> str:
        benchmark = f"{self.benchmark} ({self.benchmark_language})"
        return f"{self.column} has {self.overlap:.0%} in common with {benchmark}: {self.benchmark_text}"


def find_matches(
    index: BenchmarkIndex, column: str, keys: Sequence[str], rows: Sequence[RowName]
) -> list[tuple[int, BenchmarkMatch]]:
    """Find the texts that are equal or near to a benchmark's, each with its position in `keys`.

    A text gets one match for each benchmark: the one with the largest overlap, of equal ones the first.

    Args:
        index: the benchmarks' texts.
        column: the column that the texts are from.
        keys: normalized texts.
        rows: the row of each.
    """
    best: dict[tuple[int, str], NgramMatch] = {}
    for match in index.ngrams.find(keys, "question" if column == "question" else "passage"):
        where = (match.text, index.texts[match.known].benchmark)
        if where not in best or match[2:] > best[where][2:]:
            best[where] = match
    found = []
    for (number, benchmark), match in best.items():
        text = index.texts[match.known]
        overlap, quoted = round(match.overlap, 4), _shorten(text.text)
        found.append(
            (
                number,
                BenchmarkMatch(*rows[number], column, overlap, match.equal, benchmark, text.lang, quoted),
            )
        )
    return found


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _QUOTED_CHARS else f"{line[: _QUOTED_CHARS - 1]}…"


# --- near texts ------------------------------------------------------------------------------------


class NgramMatch(NamedTuple):
    text: int
    """The position of the text that was looked up."""
    known: int
    """The position of the known text."""
    overlap: float
    """The share of shingles in common, as `NgramIndex` defines it; 1.0 for equal texts."""
    equal: bool


class NgramIndex:
    """Known texts to look others up in; takes about 15 bytes a character (30 for Chinese) in each process.

    Args:
        texts: the known texts, normalized, so that case, spaces and punctuation do not count.
        kinds: what each text is.
        min_overlap: the least overlap of a match, above 0; with 1 only equal texts match.

    The overlap of two questions is the share of their shingles that both have (Jaccard), because "what is the
    capital of" does not make two questions the same. The overlap of two passages is the share of the shorter
    one's shingles that the other has, so that a known sentence is found in a long passage, and a piece of a
    known paragraph by itself. A question matches a passage only if the passage contains all its shingles.
    """

    def __init__(self, texts: Sequence[str], kinds: Sequence[Kind], min_overlap: float) -> None:
        self._min_overlap = min_overlap
        self._equal: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            self._equal.setdefault(text, []).append(number)
        self._questions = np.array([kind == "question" for kind in kinds], bool)
        self._texts = _shingle(texts)
        owners, hashes = _sample(self._texts)
        hashes, owners = _deduplicate(hashes, owners)
        starts = (
            np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else np.zeros(0, int)
        )
        counts = np.diff(np.append(starts, len(hashes)))
        rare = np.repeat(counts <= _MAX_OWNERS, counts) & (self._texts.sizes[owners] >= MIN_QUESTION_SHINGLES)
        self._hashes, self._owners = hashes[rare], owners[rare]
        self._indexed = np.bincount(self._owners, minlength=len(texts))
        self._shift = np.uint64(64 - max(16, min(27, int(8 * len(self._hashes)).bit_length())))
        self._is_indexed = np.zeros(1 << int(np.uint64(64) - self._shift), bool)
        self._is_indexed[self._hashes >> self._shift] = True

    def find(self, texts: Sequence[str], kind: Kind) -> list[NgramMatch]:
        """Find all known texts that each of `texts` (normalized) is equal or near to, in order of both."""
        found = [
            NgramMatch(i, known, 1.0, True)
            for i, text in enumerate(texts)
            for known in self._equal.get(text, ())
        ]
        if self._min_overlap < 1.0 and len(self._hashes):
            looked = _shingle(texts)
            equal = {match[:2] for match in found}
            for text, known in self._candidates(looked):
                if (text, known) not in equal and (overlap := self._overlap(looked, text, known, kind)):
                    found.append(NgramMatch(text, known, overlap, False))
        return sorted(found)

    def _candidates(self, looked: "Shingles") -> list[tuple[int, int]]:
        """Find pairs of a text and a known text whose indexed shingles share at least half of what a match needs."""
        owners, hashes = _sample(looked)
        hashes, owners = _deduplicate(hashes, owners)  # repeating itself does not make a text longer
        mine = np.bincount(owners, minlength=len(looked.sizes))
        likely = self._is_indexed[hashes >> self._shift] & (looked.sizes[owners] >= MIN_QUESTION_SHINGLES)
        hashes, owners = hashes[likely], owners[likely]
        low = np.searchsorted(self._hashes, hashes, "left")
        counts = np.searchsorted(self._hashes, hashes, "right") - low
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        known = self._owners[np.repeat(low, counts) + within]
        pairs, shared = np.unique(np.repeat(owners, counts) * len(self._indexed) + known, return_counts=True)
        texts, known = np.divmod(pairs, max(1, len(self._indexed)))
        wanted = np.minimum(mine[texts], self._indexed[known]) * (self._min_overlap / 2)
        near = shared >= wanted
        return list(zip(texts[near].tolist(), known[near].tolist(), strict=True))

    def _overlap(self, looked: "Shingles", text: int, known: int, kind: Kind) -> float:
        """Return the overlap of a text and a known text by all their shingles; 0 where it is too small for a match."""
        one, other = looked.of(text), self._texts.of(known)
        both_ask = bool(self._questions[known]) and kind == "question"
        if min(len(one), len(other)) < (MIN_QUESTION_SHINGLES if both_ask else MIN_PASSAGE_SHINGLES):
            return 0.0
        shared = len(np.intersect1d(one, other, assume_unique=True))
        min_overlap = self._min_overlap
        if both_ask:
            overlap = shared / (len(one) + len(other) - shared)
        elif not self._questions[known] and kind == "passage":
            overlap = shared / min(len(one), len(other))
        else:  # a question in a passage, whichever of the two is known
            min_overlap, question = 1.0, other if self._questions[known] else one
            overlap = shared / len(question)
        return overlap if overlap >= min_overlap else 0.0


class Shingles(NamedTuple):
    """The shingles of texts that were put one after another."""

    hashes: UInt64[np.ndarray, " chars"]
    """The shingle that begins at each character; the last WIDTH - 1 of a text reach into the next one."""
    starts: Int64[np.ndarray, " texts"]
    """The place of each text's first shingle."""
    sizes: Int64[np.ndarray, " texts"]
    """The number of shingles within each text."""

    def of(self, text: int) -> UInt64[np.ndarray, " shingles"]:
        """Return the text's different shingles in ascending order."""
        start = self.starts[text]
        return np.unique(self.hashes[start : start + self.sizes[text]])


def _shingle(texts: Sequence[str]) -> Shingles:
    codes = languages.code_points("".join(texts))
    ends = np.cumsum([0, *map(len, texts)])
    # A Chinese character or a syllable of kana or Hangul says as much as several letters: each counts twice.
    twice = (codes >= 0x2E80) & (codes < 0xD7B0) | (codes >= 0x20000)
    codes = np.repeat(codes, np.where(twice, 2, 1))
    ends += np.cumsum(np.concatenate([[0], twice]))[ends]
    # Multiplied once more, so that the upper bits, by which the index looks up, depend on all characters.
    hashes = normalize.hash_shingles(codes, WIDTH) * _MIXER
    return Shingles(hashes, ends[:-1], np.maximum(np.diff(ends) - WIDTH + 1, 0))


def _sample(texts: Shingles) -> tuple[Int64[np.ndarray, " sampled"], UInt64[np.ndarray, " sampled"]]:
    """Return text and hash of the shingles to index: a choice by hash, so that equal shingles share their fate."""
    places = np.flatnonzero((texts.hashes & np.uint64(_INDEXED_SHARE - 1)) == 0)
    owners = np.searchsorted(texts.starts, places, "right") - 1
    own = places - texts.starts[owners] < texts.sizes[owners] if len(places) else np.zeros(0, bool)
    return owners[own], texts.hashes[places[own]]


def _deduplicate(
    hashes: UInt64[np.ndarray, " shingles"], owners: Int64[np.ndarray, " shingles"]
) -> tuple[UInt64[np.ndarray, " different"], Int64[np.ndarray, " different"]]:
    """Return each combination of hash and text once, sorted by hash, then text."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    if not len(order):
        return hashes, owners
    new = np.append(True, (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1]))
    return hashes[new], owners[new]
