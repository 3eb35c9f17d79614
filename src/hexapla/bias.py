"""Measures of language bias in a ranking over one pool of all languages."""

import numpy as np


def rank_distance(ranks: np.ndarray) -> np.ndarray:
    """Worst minus best rank of a question's relevant candidates (arXiv 2408.10536, section 3.3).

    Args:
        ranks: int [questions, languages], from 1; 0 where a language has none.

    Returns:
        float [questions]; 0 with one relevant candidate, NaN without any. The least that n
        translations allow is n - 1.
    """
    worst = ranks.max(axis=1)
    best = np.where(ranks > 0, ranks, np.iinfo(ranks.dtype).max).min(axis=1)
    return np.where(worst > 0, worst - best, np.nan)


def own_language_share(top_languages: np.ndarray, question_language: np.ndarray) -> np.ndarray:
    """Share of a question's first candidates that stand in the question's own language.

    Args:
        top_languages: int [questions, k], the languages of the first k candidates.
        question_language: int [questions].

    Returns:
        float [questions]; 1 / (number of languages) where the language plays no part.
    """
    own: np.ndarray = (top_languages == question_language[:, None]).mean(axis=1)
    return own
