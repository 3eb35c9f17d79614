"""Measures of language bias, mostly in a ranking over one pool of all languages.

`ranks` is int64 [questions, languages] everywhere: the rank (from 1) of the relevant candidate in
each language, 0 where a language has none, `records.UNFOUND` where a ranking cut at some depth did
not reach it. `asked` is int [questions], the position of the question's language.
"""

import numpy as np

from hexapla.schema import UNFOUND


def rank_distance(ranks: np.ndarray) -> np.ndarray:
    """Worst minus best rank of a question's relevant candidates (arXiv 2408.10536, section 3.3).

    Returns:
        float [questions]; NaN with fewer than two relevant candidates, between which alone there is a
        distance; infinite when one was not found. The least that n translations allow is n - 1.
    """
    worst = worst_rank(ranks)
    best = np.where(ranks > 0, ranks, UNFOUND).min(axis=1)
    distance = np.where(np.isinf(worst), np.inf, worst - best)
    return np.where((ranks > 0).sum(axis=1) > 1, distance, np.nan)


def worst_rank(ranks: np.ndarray) -> np.ndarray:
    """How deep a reader must go to meet the answer in every language that has it.

    Unlike rank distance it is not fooled by a question whose translations all stand equally low.

    Returns:
        float [questions]; NaN without any relevant candidate, infinite when one was not found.
    """
    worst = ranks.max(axis=1)
    return np.where(worst == UNFOUND, np.inf, np.where(worst > 0, worst.astype(float), np.nan))


def own_language_share(top: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Share of a question's first candidates that stand in the question's own language.

    Args:
        top: int [questions, k], the languages of the first k candidates.
        asked: int [questions].

    Returns:
        float [questions]; 1 / (number of languages) where the language plays no part.
    """
    own: np.ndarray = (top == asked[:, None]).mean(axis=1)
    return own


def recall_of_others(ranks: np.ndarray, asked: np.ndarray, *, k: int) -> np.ndarray:
    """Share of the relevant in languages other than the question's that stand among the first k.

    Returns:
        float [questions]; NaN for a question that only its own language answers.
    """
    others = (ranks > 0) & (np.arange(ranks.shape[1]) != asked[:, None])
    count = others.sum(axis=1)
    recall: np.ndarray = (others & (ranks <= k)).sum(axis=1) / np.where(count > 0, count, np.nan)
    return recall


def found_first(single: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Recall@1 by question language and passage language.

    Args:
        single: ranks in pools of one language each.
        asked: int [questions].

    Returns:
        float [languages, languages], rows the question's language; NaN where no question of a
        language has a relevant passage in the other.
    """
    size = single.shape[1]
    held = _by_language(single > 0, asked, size)
    matrix: np.ndarray = _by_language(single == 1, asked, size) / np.where(held > 0, held, np.nan)
    return matrix


def shown(top: np.ndarray, asked: np.ndarray, *, languages: int) -> np.ndarray:
    """Share that each passage language has in the first candidates, by question language.

    The diagonal holds the own-language shares; a column that is high everywhere is a language that
    questions in all languages are drawn to.

    Args:
        top: int [questions, k], the languages of the first k candidates.
        asked: int [questions].
        languages: how many there are.

    Returns:
        float [languages, languages], rows the question's language, each of sum 1; NaN in the row of
        a language without questions.
    """
    cell = asked[:, None] * languages + top
    counts = np.bincount(cell.ravel(), minlength=languages**2).reshape(languages, languages)
    total = counts.sum(axis=1, keepdims=True)
    matrix: np.ndarray = counts / np.where(total > 0, total, np.nan)
    return matrix


def _by_language(hits: np.ndarray, asked: np.ndarray, languages: int) -> np.ndarray:
    """Int [languages, languages]: hits [questions, languages], summed over each language's questions."""
    total: np.ndarray = (asked == np.arange(languages)[:, None]).astype(np.int64) @ hits.astype(np.int64)
    return total
