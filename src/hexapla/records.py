"""The tables' columns and the few types that everything else speaks in."""

from typing import NamedTuple

SOURCE_LANGUAGE = "en"
"""Pairs are collected in this language and translated from it."""

ORIGINAL = "original"
"""The `engine` of a row that nobody translated."""


class Pair(NamedTuple):
    """One row of the parallel table: a question and the passage that answers it, in one language.

    `id` and `passage_id` are the same in all languages of a pair. `answer` may be empty; when it
    is not, it stands verbatim in `passage`. `engine` says who translated the row. `negatives` are
    passages in the row's language that do not answer the question; their number, and what stands at
    which place, may differ from one language of a pair to another.
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


UNFOUND = 2**63 - 1
"""The rank of a relevant passage that a ranking cut at k does not reach: relevant, never found."""

PAIR_COLUMNS: tuple[str, ...] = Pair._fields


class Mistake(Exception):  # noqa: N818 - it is the user's, and the message says whose and where
    """Something the user can mend: one line that names the file, row or key, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
