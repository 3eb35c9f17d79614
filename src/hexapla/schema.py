"""The tables' columns and the few types that everything else speaks in."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple

SOURCE_LANGUAGE = "en"
"""Pairs are collected in this language and translated from it."""

ORIGINAL = "original"
"""The `engine` of a row that nobody translated."""


class Pair(NamedTuple):
    """One row of the parallel table: a question and the passage that answers it, in one language.

    `id` and `passage_id` are the same in all languages of a pair. `answer` may be empty; otherwise
    it is verbatim in `passage`. `engine` says who translated the row. `negatives` are passages in the row's
    language that do not answer the question; their number and order may differ between the languages of a pair.
    """

    id: str
    source: str
    lang: str
    question: str
    passage: str
    answer: str
    passage_id: str
    engine: str
    negatives: tuple[str, ...] = ()


class Quality(NamedTuple):
    """What a translation kept of its English row; None where that is unknown, as for English rows.

    The parallel table has them as further columns of the row, and `validate` checks them against thresholds.
    """

    length_ratio: float | None = None
    """Length of the translated passage divided by that of the English one, in characters."""
    question_language: str | None = None
    """The row's own code if the identifier agrees, otherwise the one that it found; English rows have it, too."""
    passage_language: str | None = None
    copy_share: float | None = None
    """Share of the letters of question or passage, whichever is larger, in words that the English text has, too."""
    numbers_kept: float | None = None
    """Share of the English texts' numbers of three digits or more that the row has, in whatever digits."""
    answer_kept: bool | None = None
    """Whether the row still has an answer, where the English row has one."""
    cosine: float | None = None
    """Cosine similarity of the passage and its English original, by the untuned encoder."""


QUALITY_COLUMNS: tuple[str, ...] = Quality._fields

UNFOUND = 2**63 - 1
"""The rank of a relevant passage that a ranking cut at k does not reach: relevant, never found."""

PAIR_COLUMNS: tuple[str, ...] = Pair._fields


class BenchmarkQuery(NamedTuple):
    """A query of a parallel benchmark, in one language; its id is the same in all languages."""

    id: str
    lang: str
    text: str
    passage: int
    """Position in `ParallelBenchmark.passages` of the passage that answers it in its own language."""


class BenchmarkPassage(NamedTuple):
    """A passage that a parallel benchmark ranks: a sentence and the text around it, which may be empty."""

    lang: str
    text: str
    context: str


class ParallelBenchmark(NamedTuple):
    """Every query and every passage of all languages.

    Of passages with equal scores the earlier one ranks first, so their order decides ties.
    """

    languages: tuple[str, ...]
    queries: list[BenchmarkQuery]
    passages: list[BenchmarkPassage]
    passage_unit: str = "sentence"

    @property
    def relevant(self) -> dict[str, list[int]]:
        """The positions, for each query id, of its relevant passages in all languages."""
        positions: dict[str, list[int]] = {}
        for query in self.queries:
            positions.setdefault(query.id, []).append(query.passage)
        return positions

    @property
    def texts(self) -> list[str] | list[tuple[str, str]]:
        """What is encoded for each passage: its sentence, or (sentence, context) as in LAReQA's baselines."""
        if self.passage_unit == "sentence":
            return [passage.text for passage in self.passages]
        return [(passage.text, passage.context) for passage in self.passages]


class UserError(Exception):
    """Something the user can mend: one line that names the file, row or key, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 160 characters; without a message, the error's type.

    Libraries write messages of many lines, where a `UserError` has one.
    """
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:160]


def suggest(name: str, known: Iterable[str]) -> str:
    """Suggest the closest known name for one that is not known, or list them all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
