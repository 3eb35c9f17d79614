"""The batch plan: (index, seed, epoch, step) to the global batch, as a pure function.

Every process computes the same plan and takes its slice, so all agree on a batch's kind, and
continuing at a step needs no state. An epoch is one order of all ids; a step is the next
`batch_size` of them, in languages that the sampler draws (arXiv 2408.10536, section 3.2):

- monolingual: one language a batch, drawn uniformly; question and passage both in it;
- crosslingual: in each pair the languages of question and passage differ, drawn pair by pair;
- hybrid: monolingual with probability alpha, crosslingual otherwise.

No id and no passage stands twice in a batch: a translation of a passage says the same in other
words, and would be a false negative. An id that lacks the language which a batch needs gives its
place to another one that has it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hexapla.records import Mistake

MONOLINGUAL, CROSSLINGUAL = "monolingual", "crosslingual"


class Index(NamedTuple):
    """The parallel table, seen from its ids."""

    languages: tuple[str, ...]
    rows: np.ndarray
    """int [ids, languages]: the table's row, -1 where the id lacks the language."""
    passages: np.ndarray
    """int [ids]: equal for ids that share their passage."""


class Batch(NamedTuple):
    """A global batch; each array is int [batch]."""

    kind: str
    items: np.ndarray
    """Positions of the ids in the index."""
    question_languages: np.ndarray
    passage_languages: np.ndarray


def index(ids: Sequence[str], langs: Sequence[str], passage_ids: Sequence[str]) -> Index:
    """The index of a parallel table, given its columns.

    Raises:
        Mistake: an (id, lang) stands twice.
    """
    names, item = np.unique(np.asarray(ids, dtype=object).astype(str), return_inverse=True)
    languages, lang = np.unique(np.asarray(langs, dtype=object).astype(str), return_inverse=True)
    _, passage = np.unique(np.asarray(passage_ids, dtype=object).astype(str), return_inverse=True)
    rows = np.full((len(names), len(languages)), -1, dtype=np.int64)
    rows[item, lang] = np.arange(len(item))
    if (rows >= 0).sum() != len(item):
        twin = np.setdiff1d(np.arange(len(item)), rows)[0]
        raise Mistake(f"training data: id '{ids[twin]}' stands twice in language '{langs[twin]}'")
    passages = np.zeros(len(names), dtype=np.int64)
    passages[item] = passage
    return Index(tuple(map(str, languages)), rows, passages)


class Plan:
    """The batches of one sampler over one index; `plan(epoch, step)` is pure."""

    def __init__(self, index: Index, *, sampler: str, batch_size: int, seed: int, alpha: float = 0.5) -> None:
        self.index, self.batch_size, self.seed = index, batch_size, seed
        self.alpha = SAMPLERS[sampler](alpha)
        usable = (index.rows >= 0).sum(axis=1) >= (1 if self.alpha == 1 else 2)
        distinct = len(np.unique(index.passages[usable]))
        if distinct < batch_size:
            raise Mistake(
                f"train.batch_size: {batch_size}, but sampler '{sampler}' finds only {distinct} different "
                "passages to fill a batch; lower it or add data"
            )
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def __len__(self) -> int:
        """Steps in an epoch; the ids left over at its end wait for another order."""
        return len(self.index.passages) // self.batch_size

    def at(self, step: int) -> Batch:
        """The batch of a step counted over all epochs."""
        return self(*divmod(step, max(len(self), 1)))

    def __call__(self, epoch: int, step: int) -> Batch:
        # Separate streams: the order and the kinds stay as they are when the rest changes.
        kinds = np.random.default_rng([self.seed, epoch, step, 1])
        rng = np.random.default_rng([self.seed, epoch, step, 2])
        kind = MONOLINGUAL if kinds.random() < self.alpha else CROSSLINGUAL
        start = step * self.batch_size
        items = self._order(epoch)[start : start + self.batch_size]
        return self._monolingual(items, rng) if kind == MONOLINGUAL else self._crosslingual(items, rng)

    def _shuffle(self, epoch: int) -> np.ndarray:
        """An order of all ids in which no batch holds a passage twice, as far as the data allow."""
        rng = np.random.default_rng([self.seed, epoch, 0])
        order = rng.permutation(len(self.index.passages))
        size, whole = self.batch_size, len(self) * self.batch_size
        # A second id of a passage changes places with a random one; few rounds settle it. What is
        # left, in data with more ids a passage than batches, `_filled` mends within the batch.
        for _ in range(32):
            batch = np.arange(whole) // size
            key = batch * (self.index.passages.max() + 1) + self.index.passages[order[:whole]]
            _, first = np.unique(key, return_index=True)
            twins = np.setdiff1d(np.arange(whole), first)
            if not len(twins):
                break
            for here, there in zip(twins, rng.integers(len(order), size=len(twins)), strict=True):
                order[here], order[there] = order[there], order[here]
        return order

    def _monolingual(self, items: np.ndarray, rng: np.random.Generator) -> Batch:
        has = self.index.rows >= 0
        enough = np.flatnonzero([len(np.unique(self.index.passages[c])) >= self.batch_size for c in has.T])
        if not len(enough):
            raise Mistake(
                f"train.batch_size: {self.batch_size}, but no language has as many different passages; "
                "lower it or add data"
            )
        language = rng.choice(enough)
        items = self._filled(items, has[:, language], rng)
        languages = np.full(len(items), language)
        return Batch(MONOLINGUAL, items, languages, languages)

    def _crosslingual(self, items: np.ndarray, rng: np.random.Generator) -> Batch:
        has = self.index.rows >= 0
        items = self._filled(items, has.sum(axis=1) >= 2, rng)
        # The two largest of uniform draws over an id's own languages: a uniform ordered pair.
        draws = np.where(has[items], rng.random((len(items), has.shape[1])), -1.0)
        pair = np.argsort(-draws, axis=1)[:, :2]
        return Batch(CROSSLINGUAL, items, pair[:, 0], pair[:, 1])

    def _filled(self, items: np.ndarray, fits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`items` with those that don't fit, and second ids of a passage, replaced by others."""
        passages = self.index.passages
        good = fits[items]
        _, first = np.unique(np.where(good, passages[items], -1 - np.arange(len(items))), return_index=True)
        good[np.setdiff1d(np.arange(len(items)), first)] = False
        if good.all():
            return items
        others = np.flatnonzero(fits & ~np.isin(passages, passages[items[good]]))
        others = rng.permutation(others)
        _, first = np.unique(passages[others], return_index=True)
        filled = items.copy()
        filled[~good] = others[np.sort(first)][: (~good).sum()]
        return filled


SAMPLERS: dict[str, Callable[[float], float]] = {
    "hybrid": lambda alpha: alpha,
    "monolingual": lambda _: 1.0,
    "crosslingual": lambda _: 0.0,
}
"""What share of batches a sampler makes monolingual, given `hybrid.alpha`."""
