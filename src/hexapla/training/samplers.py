"""The batch plan: a pure function of (index, seed, epoch, step) that gives the global batch.

Every process computes the same plan and takes its slice, so all processes agree on a batch's kind, and a training
continues at any step without any state. `shuffle` chooses the ids that a step is offered; a sampler draws their
languages (arXiv 2408.10536, section 3.2):

- monolingual: one language a batch, for query and passage;
- crosslingual: in each pair query and passage are in different languages, drawn pair by pair;
- hybrid: monolingual with probability alpha, crosslingual otherwise. The kind is drawn for each batch as in the
  paper, or for each pair (`mixing`), a control that the paper lacks;
- parallel, beyond the paper: few ids, each in several languages, all of them positives of each other.

No id and no passage occurs twice in a batch (parallel's languages apart): a translation of a passage says the same
in other words and would be a false negative. An id that lacks a language which the batch needs is replaced by
another one that has it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int16, Int32

from hexapla.schema import UserError
from hexapla.training.shuffle import IdOrder

MONOLINGUAL, CROSSLINGUAL, MIXED, PARALLEL = "monolingual", "crosslingual", "mixed", "parallel"

_CHUNK = 1 << 20
"""Rows of the table that are indexed at a time, which bounds the memory that this takes beyond the index."""

_RARE = 1 / 8
"""Replacements are drawn from all ids until they are eligible; below this share they are drawn from a list."""

_SAMPLE = 1 << 16
"""Ids from which the share of eligible ones is estimated."""


class CodedColumn(NamedTuple):
    """A text column: row r holds names[values[r]]. All names are different."""

    values: Int32[np.ndarray, " rows"]
    names: Sequence[str]


class PairIndex(NamedTuple):
    """The parallel table by id."""

    languages: tuple[str, ...]
    rows: Int[np.ndarray, "ids languages"]
    """The table's row, -1 where the id lacks the language; int32, or int64 if the table is that long."""
    passages: Int32[np.ndarray, " ids"]
    """Equal for ids that share their passage."""
    sources: Int16[np.ndarray, " ids"]
    """The data set, as a position in `source_names`."""
    source_names: tuple[str, ...]


class Batch(NamedTuple):
    """A global batch, or one process's slice of it."""

    kind: str
    items: Int[np.ndarray, " batch"]
    """Positions of the ids in the index."""
    query_languages: Int[np.ndarray, " batch"]
    passage_languages: Int[np.ndarray, " batch"]

    def slice_for(self, process: int, processes: int) -> "Batch":
        """The slice of one of several processes; raises UserError when they don't divide the batch."""
        size, rest = divmod(len(self.items), processes)
        if rest:
            raise UserError(
                f"train.batch_size: {len(self.items)} can't be divided among {processes} processes; "
                "make it a multiple of them"
            )
        mine = slice(process * size, (process + 1) * size)
        return Batch(self.kind, *(column[mine] for column in self[1:]))


def build_index(
    ids: CodedColumn, langs: CodedColumn, passages: CodedColumn, sources: CodedColumn
) -> PairIndex:
    """Index a parallel table, given its columns.

    Raises:
        UserError: an id occurs twice in one language.
    """
    languages, language = _sort_names(langs.names)
    source_names, source = _sort_names(sources.names)
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
        id_, lang = (column.names[int(column.values[twin])] for column in (ids, langs))
        raise UserError(f"training data: id '{id_}' occurs twice in language '{lang}'")
    return PairIndex(languages, rows, passage_of, source_of, source_names)


def _sort_names(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Sort the names; return them, and for each code its position among them."""
    order = sorted(range(len(names)), key=names.__getitem__)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    return tuple(names[code] for code in order), position


# --- the plan ----------------------------------------------------------------------------------


class BatchPlan:
    """The batches of one sampler over one index; `plan(epoch, step)` is pure.

    Args:
        index: the table.
        sampler: hybrid, monolingual, crosslingual or parallel.
        batch_size: rows of a global batch.
        seed: decides everything that is drawn here.
        alpha: hybrid's probability of monolingual.
        mixing: hybrid draws its kind for each "batch", or for each "example".
        languages_per_id: parallel's; its batch holds batch_size // languages_per_id ids.
        weights: how often each language is drawn, relative to the others, where an id has it; only the named
            languages take part. Empty: all languages of the index, equally often.
        exponent: a source's share is proportional to its number of ids to this power (see `IdOrder`).

    Raises:
        UserError: the data can't fill a batch, or a weight is wrong.
    """

    left_out: Mapping[str, int]
    """Languages that have no monolingual batches, because they have fewer different passages than a batch needs,
    and how many they have."""

    def __init__(
        self,
        index: PairIndex,
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
        self._per_id = languages_per_id if self._kind == PARALLEL else 1
        if batch_size % self._per_id:
            raise UserError(
                f"parallel.languages: {languages_per_id} does not divide train.batch_size, {batch_size}; "
                "change one of them"
            )
        self._size = batch_size // self._per_id
        columns, self._weights = _resolve_weights(index.languages, weights)
        least = self._per_id if self._kind == PARALLEL else 1 if self._alpha == 1 else 2
        self._any, self._several = (
            require_languages(index.rows, index.passages, columns, count) for count in (1, least)
        )
        if self._alpha < 1 or self._kind:
            self._refuse_too_few(sampler, count_passages(self._several, self._size))
        self._single: list[Eligibility] = []
        self.left_out = {}
        if self._alpha > 0 and not self._kind:
            self._single = self._require_one_language(sampler, named=bool(weights))
        self._order = IdOrder(index.passages, index.sources, size=self._size, seed=seed, exponent=exponent)

    def _require_one_language(self, sampler: str, *, named: bool) -> list["Eligibility"]:
        """What each language's monolingual batches need; notes in `left_out` the languages that can't fill one."""
        rows, passages, columns = self.index.rows, self.index.passages, self._any.languages
        each = [require_languages(rows, passages, column[None], 1) for column in columns]
        counts = [count_passages(eligible, self._size) for eligible in each]
        self._refuse_too_few(sampler, max(counts, default=0))
        enough = np.array(counts) >= self._size
        self.left_out = {
            self.index.languages[column]: count
            for column, count in zip(columns, counts, strict=True)
            if count < self._size
        }
        if named and self.left_out:
            language, count = next(iter(self.left_out.items()))
            raise UserError(
                f"train.languages: '{language}' has only {count} different passages, too few for a batch of "
                f"{self._size}; leave it out, or lower train.batch_size"
            )
        self._single_weights = self._weights[enough]
        return [eligible for eligible, kept in zip(each, enough, strict=True) if kept]

    def _refuse_too_few(self, sampler: str, passages: int) -> None:
        if passages < self._size:
            each = f", each in {self._per_id} languages," if self._per_id > 1 else ""
            raise UserError(
                f"train.batch_size: {self.batch_size} takes {self._size} different passages{each} but "
                f"sampler '{sampler}' finds only {passages} in the data; lower it or add data"
            )

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._order)

    def at(self, step: int) -> Batch:
        """The batch of a step that is counted over all epochs."""
        return self(*divmod(step, len(self)))

    def __call__(self, epoch: int, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, epoch, step, 2])
        items = self._order.at(epoch, step)
        if self._kind == PARALLEL:
            return self._draw_parallel(items, rng)
        monolingual = self._draw_kinds(epoch, step, len(items) if self._kind == MIXED else 1)
        if self._kind == MIXED:
            return self._draw_pairs(MIXED, items, monolingual, rng)
        if monolingual[0]:
            return self._draw_monolingual(items, rng)
        return self._draw_pairs(CROSSLINGUAL, items, np.zeros(len(items), bool), rng)

    def _draw_kinds(self, epoch: int, step: int, count: int) -> Bool[np.ndarray, " count"]:
        """Draw whether a batch, or each pair of one, is monolingual.

        The random stream is separate, so that order and kinds stay the same when anything else changes.
        """
        if self._alpha in (0, 1):
            return np.full(count, self._alpha == 1)
        return np.random.default_rng([self.seed, epoch, step, 1]).random(count) < self._alpha

    def _draw_monolingual(self, items: np.ndarray, rng: np.random.Generator) -> Batch:
        rings = rng.standard_exponential(len(self._single)) / self._single_weights
        eligible = self._single[rings.argmin()]
        items = replace_ineligible(eligible, items, eligible.accepts(items), rng)
        languages = np.repeat(eligible.languages, len(items))
        return Batch(MONOLINGUAL, items, languages, languages)

    def _draw_pairs(
        self, kind: str, items: np.ndarray, monolingual: np.ndarray, rng: np.random.Generator
    ) -> Batch:
        """Draw languages pair by pair: one for a monolingual pair, two different ones for the others."""
        accepted = self._several.accepts(items)
        if monolingual.any():
            accepted |= monolingual & self._any.accepts(items)
        items = replace_ineligible(self._several, items, accepted, rng)
        drawn = draw_languages(self._any, items, self._weights, 2, rng)
        first, second = drawn[:, 0], np.where(monolingual, drawn[:, 0], drawn[:, -1])
        # With weights, the language that is drawn first is the heavier one more often than not.
        swapped = rng.random(len(items)) < 0.5
        return Batch(kind, items, np.where(swapped, second, first), np.where(swapped, first, second))

    def _draw_parallel(self, items: np.ndarray, rng: np.random.Generator) -> Batch:
        items = replace_ineligible(self._several, items, self._several.accepts(items), rng)
        languages = draw_languages(self._several, items, self._weights, self._per_id, rng).ravel()
        return Batch(PARALLEL, np.repeat(items, self._per_id), languages, languages)


def _resolve_weights(languages: Sequence[str], weights: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the languages that take part, as columns of the index, and their weights."""
    for name, weight in weights.items():
        if name not in languages:
            known = ", ".join(languages)
            raise UserError(f"train.languages: '{name}' is not in the data; they have {known}")
        if not 0 < weight < np.inf:
            raise UserError(f"train.languages: '{name}' has weight {weight}; a weight must be above 0")
    columns = [column for column, name in enumerate(languages) if name in weights or not weights]
    return np.array(columns, np.int64), np.array([weights.get(languages[column], 1.0) for column in columns])


# --- which ids are eligible --------------------------------------------------------------------


class Eligibility(NamedTuple):
    """The ids that have at least `least` of some languages; `require_languages` makes it."""

    rows: Int[np.ndarray, "ids all_languages"]
    """Negative where the id lacks the language."""
    passages: Int32[np.ndarray, " ids"]
    """Equal for ids that share their passage."""
    languages: Int[np.ndarray, " languages"]
    """Columns of `rows`."""
    least: int
    eligible: Int32[np.ndarray, " eligible"]
    """All eligible ids, where these are rare; empty otherwise."""

    def find_languages(self, items: Int[np.ndarray, " items"]) -> Bool[np.ndarray, "items languages"]:
        """Which of the languages each id has."""
        if len(self.languages) == 1:
            return np.asarray(self.rows[items, self.languages[0]] >= 0)[:, None]
        # A whole row of `rows` lies together in memory, so it is taken before its columns are chosen.
        return np.asarray(self.rows.take(items, axis=0)[:, self.languages] >= 0)

    def accepts(self, items: Int[np.ndarray, " items"]) -> Bool[np.ndarray, " items"]:
        """Which of the ids have enough of the languages."""
        has = self.find_languages(items)
        return has[:, 0] if has.shape[1] == self.least == 1 else has.sum(axis=1) >= self.least


def require_languages(
    rows: Int[np.ndarray, "ids all_languages"],
    passages: Int32[np.ndarray, " ids"],
    languages: Int[np.ndarray, " languages"],
    least: int,
) -> Eligibility:
    """Require at least `least` of some languages; list the ids that have them if they are rare."""
    made = Eligibility(rows, passages, languages, least, np.zeros(0, np.int32))
    sample = np.arange(0, len(rows), max(1, len(rows) // _SAMPLE))
    if np.count_nonzero(made.accepts(sample)) >= _RARE * len(sample):
        return made
    chunks = [np.arange(start, min(start + _SAMPLE, len(rows))) for start in range(0, len(rows), _SAMPLE)]
    eligible = [chunk[made.accepts(chunk)].astype(np.int32) for chunk in chunks]
    return made._replace(eligible=np.concatenate(eligible))


def count_passages(eligibility: Eligibility, wanted: int) -> int:
    """Count the different passages of the eligible ids, at least up to `wanted`."""
    step = max(1, len(eligibility.rows) // (4 * wanted))
    while True:
        items = np.arange(0, len(eligibility.rows), step)
        count = len(np.unique(eligibility.passages[items[eligibility.accepts(items)]]))
        if count >= wanted or step == 1:
            return count
        step = max(1, step // 8)


def replace_ineligible(
    eligibility: Eligibility,
    items: Int[np.ndarray, " batch"],
    accepted: Bool[np.ndarray, " batch"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " batch"]:
    """Replace the ids that are not accepted, or repeat a passage, by random eligible ones.

    Args:
        eligibility: must have ids of at least len(items) different passages.
        items: the ids.
        accepted: which of them may stay.
        rng: draws the others.
    """
    kept = np.flatnonzero(accepted)
    kept = kept[_mark_first_occurrences(eligibility.passages[items[kept]])]
    if len(kept) == len(items):
        return items
    missing = np.ones(len(items), bool)
    missing[kept] = False
    chosen, size = items[kept], 2 * (len(items) - len(kept))
    while len(chosen) < len(items):
        drawn = _draw_ids(eligibility, size, rng)
        chosen = np.concatenate([chosen, drawn[eligibility.accepts(drawn)]])
        chosen = chosen[_mark_first_occurrences(eligibility.passages[chosen])]
        size *= 4
    items = items.copy()
    items[missing] = chosen[len(kept) : len(items)]
    return items


def _draw_ids(eligibility: Eligibility, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ids at random; all of them in random order, when as many are asked for."""
    known = len(eligibility.eligible)
    count = known or len(eligibility.rows)
    positions = rng.permutation(count) if size >= count else rng.integers(count, size=size)
    return eligibility.eligible[positions].astype(np.int64) if known else positions


def _mark_first_occurrences(values: Int32[np.ndarray, " values"]) -> Bool[np.ndarray, " values"]:
    ascending = np.sort(values)
    if (ascending[1:] != ascending[:-1]).all():
        return np.ones(len(values), bool)
    # Value and position in one number: sorting numbers is many times as fast as numpy.unique.
    tagged = np.sort(values.astype(np.int64) << 32 | np.arange(len(values)))
    first = np.ones(len(values), bool)
    again = tagged[1:][tagged[1:] >> 32 == tagged[:-1] >> 32]
    first[again & 0xFFFFFFFF] = False
    return first


def draw_languages(
    eligibility: Eligibility,
    items: Int[np.ndarray, " items"],
    weights: Float[np.ndarray, " languages"],
    count: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "items count"]:
    """Draw for each id `count` different languages that it has, as columns of the index.

    They are drawn one after the other, each in proportion to its weight among what is left. That is the order in
    which exponential clocks with these rates ring (Efraimidis and Spirakis 2006).
    """
    rings = rng.standard_exponential((len(items), len(weights)), np.float32) / weights.astype(np.float32)
    rings[~eligibility.find_languages(items)] = np.inf
    drawn = np.empty((len(items), count), np.int64)
    everyone = np.arange(len(items))
    for position in range(count):
        drawn[:, position] = rings.argmin(axis=1)
        rings[everyone, drawn[:, position]] = np.inf
    return eligibility.languages[drawn]
