"""Vectors of a parallel benchmark to ranks, exactly and in bounded memory.

What is promised: the ranks are those of a list sorted by score, then by position. Candidates with
equal vectors have equal scores, so they tie and the earlier one leads; BLAS alone does not grant
that, its last bit depends on where in the matrix a column stands. That last bit also depends on
processor, BLAS, number of threads and chunk, so two *different* candidates whose scores are that
close may change places between machines. Same machine, same vectors: same ranks.
"""

from typing import NamedTuple

import numpy as np

from hexapla.schema import ParallelBenchmark, UserError

_TOP = 10
_BYTES = 2**23
"""Scores held at a time. Rows are then read again while they are still in a cache."""


class Ranks(NamedTuple):
    """Where the relevant candidates of every question stand; all that the measures need.

    Column l of `single` and `multi` is the relevant candidate in language l, 0 where there is none.
    """

    languages: tuple[str, ...]
    ids: np.ndarray
    """str [questions], the source question: the same in all of its languages."""
    asked: np.ndarray
    """int64 [questions], the question's language as a position in `languages`."""
    single: np.ndarray
    """int64 [questions, languages], the rank among the candidates of language l."""
    multi: np.ndarray
    """int64 [questions, languages], the rank among all candidates."""
    top: np.ndarray
    """int64 [questions, 10], the languages of the first candidates; a smaller pool has fewer."""


def rank(benchmark: ParallelBenchmark, questions: np.ndarray, candidates: np.ndarray) -> Ranks:
    """Rank the relevant candidates by inner product.

    Args:
        benchmark: candidates in blocks, a language each, in the order of its `languages`.
        questions: float [questions, dim], in the benchmark's order.
        candidates: float [candidates, dim], likewise. Below float32 is ranked in float32.

    Raises:
        UserError: vectors that do not fit the benchmark, or that are not finite.
    """
    position = {lang: i for i, lang in enumerate(benchmark.languages)}
    asked = np.array([position[question.lang] for question in benchmark.queries], dtype=np.int64)
    pool = np.array([position[candidate.lang] for candidate in benchmark.passages], dtype=np.int64)
    if (np.diff(pool) < 0).any():
        raise UserError("the benchmark's candidates do not stand in blocks, a language each; sort them so")
    questions, candidates = _checked(benchmark, questions, candidates)
    edges = np.searchsorted(pool, np.arange(len(position) + 1)).tolist()
    relevant = _relevant(benchmark, pool)
    single, multi = np.zeros_like(relevant), np.zeros_like(relevant)
    top = np.zeros((len(questions), min(_TOP, len(candidates))), dtype=np.int64)
    later, earlier = _twins(candidates)
    rows = max(1, _BYTES // max(1, len(candidates) * candidates.itemsize))
    buffer = np.empty((min(rows, len(questions)), len(candidates)), dtype=candidates.dtype)
    for first in range(0, len(questions), rows):
        part = slice(first, first + rows)
        scores = np.matmul(questions[part], candidates.T, out=buffer[: len(questions[part])])
        scores[:, later] = scores[:, earlier]
        single[part], multi[part] = _places(scores, relevant[part], edges)
        top[part] = pool[_first(scores, top.shape[1])]
    ids = np.array([question.id for question in benchmark.queries], dtype=np.str_)
    return Ranks(benchmark.languages, ids, asked, single, multi, top)


def _checked(
    benchmark: ParallelBenchmark, questions: np.ndarray, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both sides in one floating type that BLAS knows."""
    for name, vectors, texts in (
        ("questions", questions, benchmark.queries),
        ("candidates", candidates, benchmark.passages),
    ):
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.shape[1] != questions.shape[1]:
            raise UserError(
                f"vectors of the {name} have the shape {list(vectors.shape)}, wanted "
                f"[{len(texts)}, {questions.shape[-1]}]; encode this benchmark again"
            )
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if broken.size:
            raise UserError(
                f"{name}, row {broken[0]} (language {texts[broken[0]].lang}) and {broken.size - 1} others: "
                "the vector is not finite; the model has diverged, train it with a lower learning rate"
            )
    kind = np.result_type(questions.dtype, candidates.dtype, np.float32)
    sides = np.ascontiguousarray(questions, dtype=kind), np.ascontiguousarray(candidates, dtype=kind)
    largest, other = (float(np.abs(side).max(initial=0)) for side in sides)
    if largest * other * questions.shape[1] > float(np.finfo(kind).max):
        raise UserError("inner products of these vectors overflow; scale the vectors to unit length")
    return sides


def _relevant(benchmark: ParallelBenchmark, pool: np.ndarray) -> np.ndarray:
    """Int64 [questions, languages]: the relevant candidate in each language, -1 where there is none."""
    relevant = np.full((len(benchmark.queries), len(benchmark.languages)), -1, dtype=np.int64)
    by_id = benchmark.relevant
    for row, question in enumerate(benchmark.queries):
        held = by_id[question.id]
        relevant[row, pool[held]] = held
    return relevant


def _twins(candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Int [twins] twice: candidates whose vector stood before, and where it stood first."""
    first: dict[bytes, int] = {}
    # Adding zero makes -0.0 and 0.0, which are equal, the same bytes.
    same = np.array([first.setdefault(line.tobytes(), i) for i, line in enumerate(candidates + 0)], dtype=int)
    later = np.flatnonzero(same != np.arange(len(same)))
    return later, same[later]


def _places(scores: np.ndarray, relevant: np.ndarray, edges: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rank of every relevant candidate in its language and in the whole pool; counting, no sorting.

    Ties need no second look: an earlier candidate is ahead when its score is at least the relevant
    one's, a later one when it is greater. One row of scores stays in the cache for all languages,
    which is why a loop in Python over rows is faster here than whole matrices.
    """
    single, multi = np.zeros_like(relevant), np.zeros_like(relevant)
    ahead = np.empty(scores.shape[1], dtype=np.bool_)
    for row, (line, held) in enumerate(zip(scores, relevant.tolist(), strict=True)):
        for language, at in enumerate(held):
            if at >= 0:
                np.greater_equal(line[:at], line[at], out=ahead[:at])
                np.greater(line[at:], line[at], out=ahead[at:])
                alone = ahead[edges[language] : edges[language + 1]]
                single[row, language] = 1 + np.count_nonzero(alone)
                multi[row, language] = 1 + np.count_nonzero(ahead)
    return single, multi


def _first(scores: np.ndarray, k: int) -> np.ndarray:
    """Int64 [questions, k], the best candidates; of equals, the earlier ones."""
    best = np.empty((len(scores), k), dtype=np.int64)
    least = np.partition(scores, -k, axis=1)[:, -k]
    for row, (line, bound) in enumerate(zip(scores, least, strict=True)):
        held = np.flatnonzero(line >= bound)
        best[row] = held[np.argsort(-line[held], kind="stable")[:k]]
    return best
