"""The batch plan: (index, seed, epoch, step) to the global batch, as a pure function.

Every process computes the same plan and takes its slice, so all agree on a batch's kind, and
continuing at a step needs no state. `order` says which ids a step is offered; a sampler draws the
languages in which they stand (arXiv 2408.10536, section 3.2):

- monolingual: one language a batch; question and passage both in it;
- crosslingual: in each pair the languages of question and passage differ, drawn pair by pair;
- hybrid: monolingual with probability alpha, crosslingual otherwise; drawn for each batch as in the
  paper, or for each pair (`mixing`), the control that the paper lacks;
- parallel, beyond the paper: few ids, each in several languages, all of them positives of each other.

No id and no passage stands twice in a batch (but for parallel's languages): a translation of a passage
says the same in other words, and would be a false negative. An id that lacks a language which the batch
needs gives its place to another one that has it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hexapla.schema import UserError
from hexapla.training import eligibility
from hexapla.training.eligibility import Need
from hexapla.training.shuffle import Order

MONOLINGUAL, CROSSLINGUAL, MIXED, PARALLEL = "monolingual", "crosslingual", "mixed", "parallel"

_CHUNK = 1 << 20
"""Rows of the table at a time, which bounds what building an index takes beside the index."""


class Codes(NamedTuple):
    """A text column: what stands in row r is names[values[r]]. No name stands twice."""

    values: np.ndarray
    """int32 [rows]"""
    names: Sequence[str]


class Index(NamedTuple):
    """The parallel table, seen from its ids."""

    languages: tuple[str, ...]
    rows: np.ndarray
    """int32 [ids, languages]: the table's row, -1 where the id lacks the language; int64 if rows need it."""
    passages: np.ndarray
    """int32 [ids]: equal for ids that share their passage."""
    sources: np.ndarray
    """int16 [ids]: the data set, as a position in `source_names`."""
    source_names: tuple[str, ...]


class Batch(NamedTuple):
    """A global batch, or a process's slice of one; each array is int [batch]."""

    kind: str
    items: np.ndarray
    """Positions of the ids in the index."""
    question_languages: np.ndarray
    passage_languages: np.ndarray

    def part(self, process: int, processes: int) -> "Batch":
        """The slice of one of several processes; UserError when they don't divide the batch."""
        size, rest = divmod(len(self.items), processes)
        if rest:
            raise UserError(
                f"train.batch_size: {len(self.items)} can't be divided among {processes} processes; "
                "make it a multiple of them"
            )
        mine = slice(process * size, (process + 1) * size)
        return Batch(self.kind, *(column[mine] for column in self[1:]))


def index(ids: Codes, langs: Codes, passages: Codes, sources: Codes) -> Index:
    """The index of a parallel table, given its columns.

    Raises:
        UserError: an (id, lang) stands twice.
    """
    languages, language = _sorted(langs.names)
    source_names, source = _sorted(sources.names)
    count, width = len(ids.values), len(languages)
    rows = np.full((len(ids.names), width), -1, np.int32 if count < 2**31 else np.int64)
    passage_of, source_of = (np.zeros(len(ids.names), kind) for kind in (np.int32, np.int16))
    for start in range(0, count, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, count))
        item = ids.values[chunk].astype(np.int64)
        passage_of[item] = passages.values[chunk]
        source_of[item] = source[sources.values[chunk]]
        rows.reshape(-1)[item * width + language[langs.values[chunk]]] = np.arange(start, chunk.stop)
    if np.count_nonzero(rows >= 0) != count:
        kept = np.zeros(count, bool)
        kept[rows[rows >= 0]] = True
        twin = kept.argmin()
        who, where = (column.names[int(column.values[twin])] for column in (ids, langs))
        raise UserError(f"training data: id '{who}' stands twice in language '{where}'")
    return Index(languages, rows, passage_of, source_of, source_names)


def _sorted(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The names in order, and for each code its place among them."""
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return tuple(names[code] for code in order), place


class Plan:
    """The batches of one sampler over one index; `plan(epoch, step)` is pure.

    Args:
        index: of the table.
        sampler: hybrid, monolingual, crosslingual or parallel.
        batch_size: rows of a global batch.
        seed: of everything drawn here.
        alpha: hybrid's probability of monolingual.
        mixing: hybrid draws its kind for each "batch", or for each "example".
        languages_per_id: parallel's; its batch holds batch_size // languages_per_id ids.
        weights: how often each language is drawn, relatively, where an id has it; only those named
            take part. Empty: all of the index, equally.
        exponent: a source's share is proportional to its number of ids to this power (see `Order`).

    Raises:
        UserError: the data can't fill a batch, or a weight is wrong.
    """

    def __init__(
        self,
        index: Index,
        *,
        sampler: str,
        batch_size: int,
        seed: int,
        alpha: float = 0.5,
        mixing: str = "batch",
        languages_per_id: int = 4,
        weights: Mapping[str, float] = {},
        exponent: float = 1.0,
    ) -> None:
        self.index, self.batch_size, self.seed = index, batch_size, seed
        self._alpha = {"monolingual": 1.0, "crosslingual": 0.0}.get(sampler, alpha)
        by_pair = sampler == "hybrid" and mixing == "example" and alpha > 0
        self._kind = PARALLEL if sampler == "parallel" else MIXED if by_pair else ""
        self._each = languages_per_id if self._kind == PARALLEL else 1
        if batch_size % self._each:
            raise UserError(
                f"parallel.languages: {languages_per_id} does not divide train.batch_size, {batch_size}; "
                "change one of them"
            )
        self._size = batch_size // self._each
        columns, self._weights = _weighted(index.languages, weights)
        least = self._each if self._kind == PARALLEL else 1 if self._alpha == 1 else 2
        self._any, self._some = (eligibility.need(index.rows, index.passages, columns, n) for n in (1, least))
        if self._alpha < 1 or self._kind:
            self._check(sampler, eligibility.different(self._some, self._size))
        self._alone: list[Need] = []
        if self._alpha > 0 and not self._kind:
            self._alone = self._one_language_each(sampler, named=bool(weights))
        self._order = Order(index.passages, index.sources, size=self._size, seed=seed, exponent=exponent)

    def _one_language_each(self, sampler: str, *, named: bool) -> list[Need]:
        """The needs of monolingual batches; a language with too little for a batch has no part in them."""
        rows, passages, columns = self.index.rows, self.index.passages, self._any.languages
        each = [eligibility.need(rows, passages, column[None], 1) for column in columns]
        found = [eligibility.different(need, self._size) for need in each]
        self._check(sampler, max(found, default=0))
        enough = np.array(found) >= self._size
        if named and not enough.all():
            poor = int(enough.argmin())
            raise UserError(
                f"train.languages: '{self.index.languages[columns[poor]]}' has only {found[poor]} different "
                f"passages, too few for a batch of {self._size}; leave it out, or lower train.batch_size"
            )
        self._alone_weights = self._weights[enough]
        return [need for need, many in zip(each, enough, strict=True) if many]

    def _check(self, sampler: str, found: int) -> None:
        if found < self._size:
            each = f", each in {self._each} languages," if self._each > 1 else ""
            raise UserError(
                f"train.batch_size: {self.batch_size} takes {self._size} different passages{each} but "
                f"sampler '{sampler}' finds only {found} in the data; lower it or add data"
            )

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._order)

    def at(self, step: int) -> Batch:
        """The batch of a step counted over all epochs."""
        return self(*divmod(step, len(self)))

    def __call__(self, epoch: int, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, epoch, step, 2])
        items = self._order.at(epoch, step)
        if self._kind == PARALLEL:
            return self._parallel(items, rng)
        alone = self._is_alone(epoch, step, len(items) if self._kind == MIXED else 1)
        if self._kind == MIXED:
            return self._pairs(MIXED, items, alone, rng)
        if alone[0]:
            return self._monolingual(items, rng)
        return self._pairs(CROSSLINGUAL, items, np.zeros(len(items), bool), rng)

    def _is_alone(self, epoch: int, step: int, count: int) -> np.ndarray:
        """Whether each of a step's draws says monolingual, bool [count].

        From a stream of its own: order and kinds stay as they are when the rest changes.
        """
        if self._alpha in (0, 1):
            return np.full(count, self._alpha == 1)
        return np.random.default_rng([self.seed, epoch, step, 1]).random(count) < self._alpha

    def _monolingual(self, items: np.ndarray, rng: np.random.Generator) -> Batch:
        rings = rng.standard_exponential(len(self._alone)) / self._alone_weights
        need = self._alone[rings.argmin()]
        items = eligibility.filled(need, items, need.fits(items), rng)
        languages = np.repeat(need.languages, len(items))
        return Batch(MONOLINGUAL, items, languages, languages)

    def _pairs(self, kind: str, items: np.ndarray, alone: np.ndarray, rng: np.random.Generator) -> Batch:
        """Languages drawn pair by pair: one where `alone`, two different ones elsewhere."""
        fits = self._some.fits(items)
        if alone.any():
            fits |= alone & self._any.fits(items)
        items = eligibility.filled(self._some, items, fits, rng)
        drawn = eligibility.languages(self._any, items, self._weights, 2, rng)
        first, second = drawn[:, 0], np.where(alone, drawn[:, 0], drawn[:, -1])
        # With weights the language drawn first is the heavier one more often.
        swapped = rng.random(len(items)) < 0.5
        return Batch(kind, items, np.where(swapped, second, first), np.where(swapped, first, second))

    def _parallel(self, items: np.ndarray, rng: np.random.Generator) -> Batch:
        items = eligibility.filled(self._some, items, self._some.fits(items), rng)
        languages = eligibility.languages(self._some, items, self._weights, self._each, rng).ravel()
        return Batch(PARALLEL, np.repeat(items, self._each), languages, languages)


def _weighted(languages: Sequence[str], weights: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """The languages that take part, as columns of the index, and their weights."""
    for name, weight in weights.items():
        if name not in languages:
            known = ", ".join(languages)
            raise UserError(f"train.languages: '{name}' is not in the data; they have {known}")
        if not 0 < weight < np.inf:
            raise UserError(f"train.languages: '{name}' has weight {weight}; a weight must be above 0")
    columns = [column for column, name in enumerate(languages) if name in weights or not weights]
    return np.array(columns, np.int64), np.array([weights.get(languages[column], 1.0) for column in columns])
