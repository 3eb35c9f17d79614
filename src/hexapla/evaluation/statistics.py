"""How far a figure is to be trusted: intervals, paired tests, several seeds.

Raw material everywhere: `sums`, float64 [clusters, groups], and `counts`, int64 [clusters, groups]. A
cluster is a source question: its translations are asked about the same passages and succeed or fail
together, so they are drawn and swapped together; taken as independent, they make intervals far too
narrow. A group is what the figure is averaged over in the end: a language, a pair of languages, or
the one group of a micro average.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hexapla.schema import UserError

_CELLS = 2**21
"""Random numbers held at a time; memory stays below some 64 MiB whatever the sizes."""

_EXACT = 13
"""Up to this many clusters all 2^n swaps are enumerated: no more work than 10,000 random rounds."""


def macro(sums: np.ndarray, counts: np.ndarray) -> float:
    """Mean over the groups of each group's mean; groups without any count are left out.

    NaN when no group has any.
    """
    return float(_figures(sums.sum(axis=0)[None], counts.sum(axis=0)[None])[0])


def interval(
    sums: np.ndarray, counts: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap over clusters (Efron and Tibshirani 1993, chapter 13).

    It tells how the figure would vary with other questions; that another training seed would give
    another model it does not see. A group that a resample misses is left out of it. Both ends are
    NaN with fewer than two clusters or values that are not finite: there is nothing to resample.
    """
    held = counts.any(axis=1)
    sums, counts = sums[held], counts[held]
    clusters = len(sums)
    if clusters < 2 or not np.isfinite(sums).all():
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    figures = np.empty(resamples)
    rows = max(1, _CELLS // clusters)
    for first in range(0, resamples, rows):
        size = min(rows, resamples - first)
        # How often each cluster is drawn: a multinomial, cheaper by counting than by its sampler.
        drawn = rng.integers(clusters, size=(size, clusters)) + np.arange(size)[:, None] * clusters
        weights = np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters).astype(float)
        figures[first : first + size] = _figures(weights @ sums, weights @ counts)
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired(
    sums_a: np.ndarray, sums_b: np.ndarray, counts: np.ndarray, *, rounds: int = 10000, seed: int = 0
) -> float:
    """P-value of a two-sided paired randomisation test of macro(A) - macro(B) (Smucker et al. 2007).

    Were the models equal, their results on a cluster could be swapped. The counts are the same for
    both, so a swap changes the sign of the cluster's share of the difference and no more. With few
    clusters all swaps are enumerated, and p can't fall below 2^(1 - clusters).

    Returns:
        p in (0, 1]; NaN when a value is not finite or nothing was counted.

    Raises:
        UserError: the two were not judged on the same questions.
    """
    if not sums_a.shape == sums_b.shape == counts.shape:
        raise UserError(
            f"results of the shapes {list(sums_a.shape)} and {list(sums_b.shape)} can't be paired: the "
            "models were judged on different questions; evaluate both again"
        )
    total = counts.sum(axis=0)
    groups = total > 0
    weight = np.where(groups, 1 / (np.where(groups, total, 1) * max(1, groups.sum())), 0)
    shares = (sums_a - sums_b) @ weight
    if not groups.any() or not np.isfinite(shares).all():
        return float("nan")
    # A cluster on which both agree has nothing to swap.
    shares = shares[shares != 0]
    # Sums in another order differ in their last digits, and a tie must count as a tie.
    least = abs(shares.sum()) - 1e-12 * np.abs(shares).sum()
    if len(shares) <= _EXACT:
        return float((np.abs(_every_swap(len(shares)) @ shares) >= least).mean())
    rng = np.random.default_rng(seed)
    reached = 0
    rows = max(1, _CELLS // len(shares))
    for first in range(0, rounds, rows):
        swapped = rng.integers(2, size=(min(rows, rounds - first), len(shares)), dtype=np.int8)
        reached += int((np.abs((1 - 2 * swapped) @ shares) >= least).sum())
    return (1 + reached) / (1 + rounds)


def holm(p: Sequence[float]) -> np.ndarray:
    """P-values adjusted for testing several hypotheses at once (Holm 1979, step-down).

    Args:
        p: NaN stands for not tested: it stays NaN and does not count among the hypotheses.

    Returns:
        float64 [tests], in the order of `p`.
    """
    adjusted = np.array(p, dtype=float)
    tested = np.flatnonzero(~np.isnan(adjusted))
    order = tested[np.argsort(adjusted[tested], kind="stable")]
    scaled = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


class Seeds(NamedTuple):
    """One kind of model, trained with several seeds and judged on the same questions."""

    sums: np.ndarray
    """float64 [clusters, groups], the mean over seeds: `interval` and `paired` take it."""
    mean: float
    """The figure, averaged over seeds; the same as the figure of `sums`."""
    deviation: float
    """Sample standard deviation of the figure over seeds; NaN with one seed."""


def over_seeds(sums: Sequence[np.ndarray], counts: np.ndarray) -> Seeds:
    """Average the results of several seeds, which share their counts.

    Raises:
        UserError: there is none, or they were not judged on the same questions.
    """
    if not sums:
        raise UserError("no seed's results to average; evaluate at least one model")
    for position, each in enumerate(sums):
        if each.shape != counts.shape:
            raise UserError(
                f"results of seed {position + 1} of {len(sums)} have the shape {list(each.shape)}, wanted "
                f"{list(counts.shape)}: judged on different questions; evaluate all again"
            )
    figures = [macro(each, counts) for each in sums]
    deviation = float(np.std(figures, ddof=1)) if len(figures) > 1 else float("nan")
    return Seeds(np.mean(sums, axis=0), float(np.mean(figures)), deviation)


def _figures(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Float [rows]: the mean over groups, of sums and counts [rows, groups]."""
    held = counts > 0
    means = np.where(held, sums, 0) / np.where(held, counts, 1)
    groups = held.sum(axis=1)
    figures: np.ndarray = means.sum(axis=1) / np.where(groups > 0, groups, np.nan)
    return figures


def _every_swap(clusters: int) -> np.ndarray:
    """Int [2^clusters, clusters]: every way to set the signs."""
    codes = np.arange(2**clusters)[:, None]
    return 1 - 2 * ((codes >> np.arange(clusters)) & 1)
