"""The batch plan: a pure function of (index, seed, epoch, step) that gives the global batch.

Every process computes the same plan and takes its slice, so all processes agree on a batch's kind, and a training
continues at any step without any state. An epoch is a permutation of the ids, cut into batches; a sampler draws the
languages of each batch (arXiv 2408.10536, section 3.2):

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
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int16, Int32

from hexapla.schema import UserError

MONOLINGUAL, CROSSLINGUAL, MIXED, PARALLEL = "monolingual", "crosslingual", "mixed", "parallel"

_CHUNK = 1 << 20
"""Rows of the table that are indexed at a time, which bounds the memory that this takes beyond the index."""

_RARE = 1 / 8
"""Replacements are drawn from all ids until they are eligible; below this share they are drawn from a list."""

_CYCLE = 1024
"""Batches after which the places that each source has had are exactly its share."""

_ATTEMPTS = 20
"""How often an epoch is changed to keep passages apart: two usually suffice, unless hundreds of ids share one."""


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
        self._columns = columns
        self._any, self._several = (require_languages(index, columns, count) for count in (1, least))
        if self._alpha < 1 or self._kind:
            self._refuse_too_few(sampler, count_passages(index, self._several))
        self._single: list[Eligibility] = []
        self.left_out = {}
        if self._alpha > 0 and not self._kind:
            self._single = self._require_one_language(sampler, named=bool(weights))
        self._order = IdOrder(index, size=self._size, seed=seed, exponent=exponent)

    def _require_one_language(self, sampler: str, *, named: bool) -> list["Eligibility"]:
        """What each language's monolingual batches need; notes in `left_out` the languages that can't fill one."""
        columns = self._columns
        each = [require_languages(self.index, column[None], 1) for column in columns]
        counts = [count_passages(self.index, eligibility) for eligibility in each]
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
        self._single_columns, self._single_weights = columns[enough], self._weights[enough]
        return [eligibility for eligibility, kept in zip(each, enough, strict=True) if kept]

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
        chosen = int(rings.argmin())
        eligibility = self._single[chosen]
        items = replace_ineligible(self.index, eligibility, items, eligibility.mask[items], rng)
        languages = np.full(len(items), self._single_columns[chosen])
        return Batch(MONOLINGUAL, items, languages, languages)

    def _draw_pairs(
        self, kind: str, items: np.ndarray, monolingual: np.ndarray, rng: np.random.Generator
    ) -> Batch:
        """Draw languages pair by pair: one for a monolingual pair, two different ones for the others."""
        accepted = self._several.mask[items]
        if monolingual.any():
            accepted |= monolingual & self._any.mask[items]
        items = replace_ineligible(self.index, self._several, items, accepted, rng)
        drawn = draw_languages(self.index, items, self._columns, self._weights, 2, rng)
        first, second = drawn[:, 0], np.where(monolingual, drawn[:, 0], drawn[:, -1])
        # With weights, the language that is drawn first is the heavier one more often than not.
        swapped = rng.random(len(items)) < 0.5
        return Batch(kind, items, np.where(swapped, second, first), np.where(swapped, first, second))

    def _draw_parallel(self, items: np.ndarray, rng: np.random.Generator) -> Batch:
        items = replace_ineligible(self.index, self._several, items, self._several.mask[items], rng)
        languages = draw_languages(self.index, items, self._columns, self._weights, self._per_id, rng).ravel()
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


# --- the order of the ids ----------------------------------------------------------------------


class IdOrder:
    """Which ids each batch is offered, as a pure function of (epoch, step).

    An epoch is made when its first batch is asked for, and takes 4 bytes an id. Where ids share a passage, some change
    places until no batch has two of one passage.

    Args:
        index: the table.
        size: ids of a batch.
        seed: decides everything that is drawn here.
        exponent: a source's share of the places of a batch is proportional to its number of ids to this power. 1: an
            epoch is one permutation of all ids. Otherwise each source goes through permutations of its own ids, one
            after the other, and an epoch takes as many as its share.
    """

    def __init__(self, index: PairIndex, *, size: int, seed: int, exponent: float) -> None:
        self._passages, self._size, self._seed = index.passages, size, seed
        everyone = Eligibility(np.ones(len(index.passages), bool), np.zeros(0, np.int32))
        self._shared = count_passages(index, everyone) < len(index.passages)
        self._sources = [np.arange(len(index.passages), dtype=np.int32)]
        counts = np.bincount(index.sources)
        if exponent != 1 and np.count_nonzero(counts) > 1:
            by_source = np.argsort(index.sources, kind="stable").astype(np.int32)
            self._sources = np.split(by_source, np.cumsum(counts[counts > 0])[:-1])
        lengths = np.array([len(ids) for ids in self._sources])
        # Relative to the largest, since a power may overflow.
        shares = (lengths / max(1, lengths.max())) ** exponent
        self._places = _count_places(shares / shares.sum(), size)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._passages) // self._size

    def at(self, epoch: int, step: int) -> Int32[np.ndarray, " size"]:
        """The ids that a batch is offered.

        An id may occur twice where a source starts over within the batch, and a passage where too many ids share it.
        """
        ids: np.ndarray = self._epoch(epoch)[step]
        return ids

    def _make_epoch(self, epoch: int) -> Int32[np.ndarray, "steps size"]:
        rng = np.random.default_rng([self._seed, epoch, 0])
        if len(self._sources) == 1:
            ids = rng.permutation(self._sources[0])[: len(self) * self._size].reshape(len(self), self._size)
            return self._keep_passages_apart(ids, np.zeros(ids.shape, np.int8), rng) if self._shared else ids
        # How many places each source had before each batch, counted over all epochs: [batches + 1, sources].
        cycle, within = np.divmod(np.arange(epoch * len(self), (epoch + 1) * len(self) + 1), _CYCLE)
        places = cycle[:, None] * self._places[-1] + self._places[within]
        numbers = np.tile(np.arange(len(self._sources), dtype=np.int16), len(self))
        source_of = np.repeat(numbers, np.diff(places, axis=0).ravel()).reshape(len(self), self._size)
        # A source's places are not together, since processes take slices of the batch.
        source_of = rng.permuted(source_of, axis=1)
        ids = np.empty(source_of.shape, np.int32)
        for source, (start, end) in enumerate(zip(places[0].tolist(), places[-1].tolist(), strict=True)):
            ids[source_of == source] = self._walk(source, start, end)
        return self._keep_passages_apart(ids, source_of, rng) if self._shared else ids

    def _walk(self, source: int, start: int, end: int) -> Int32[np.ndarray, " places"]:
        """The ids of a source from one place to another, counted over all permutations of its ids."""
        ids = self._sources[source]
        parts = [np.zeros(0, np.int32)]
        for cycle in range(start // len(ids), -(-end // len(ids))):
            shuffled = np.random.default_rng([self._seed, source, cycle, 3]).permutation(ids)
            parts.append(shuffled[max(0, start - cycle * len(ids)) : end - cycle * len(ids)])
        return np.concatenate(parts)

    def _keep_passages_apart(
        self, ids: np.ndarray, source_of: np.ndarray, rng: np.random.Generator
    ) -> Int32[np.ndarray, "steps size"]:
        """Move ids that repeat a passage of their batch: they change places with others of their source."""
        flat = ids.reshape(-1)
        for _ in range(_ATTEMPTS):
            passages = self._passages[ids]
            ascending = np.sort(passages, axis=1)
            rows = np.flatnonzero((ascending[:, 1:] == ascending[:, :-1]).any(axis=1))
            if not len(rows):
                break
            order = np.argsort(passages[rows], axis=1, kind="stable")
            ascending = ascending[rows]
            again = ascending[:, 1:] == ascending[:, :-1]
            repeats = (rows[:, None] * self._size + order[:, 1:])[again]
            sources = source_of.reshape(-1)[repeats]
            for source in np.unique(sources):
                mine = repeats[sources == source]
                others = rng.integers(len(flat), size=4 * len(self._sources) * len(mine))
                others = others[source_of.reshape(-1)[others] == source]
                moving = np.union1d(mine, others)
                flat[moving] = rng.permutation(flat[moving])
        return ids


def _count_places(shares: Float[np.ndarray, " sources"], size: int) -> Int[np.ndarray, "batches+1 sources"]:
    """Count the places that each source has had before each batch of a cycle.

    This is systematic sampling: a batch gives a source its share of `size`, rounded down or up. The offsets of a cycle
    are all multiples of 1 / _CYCLE, consecutive ones far from each other (the golden section).
    """
    edges = np.concatenate([[0.0], np.cumsum(shares)[:-1], [1.0]]) * size
    offsets = np.arange(_CYCLE) * round(_CYCLE * 0.382) % _CYCLE / _CYCLE
    counts = np.diff(np.floor(edges + offsets[:, None]), axis=1).astype(np.int64)
    return np.concatenate([np.zeros((1, len(shares)), np.int64), np.cumsum(counts, axis=0)])


# --- which ids are eligible --------------------------------------------------------------------


class Eligibility(NamedTuple):
    """Which ids may be in a batch; `require_languages` makes it."""

    mask: Bool[np.ndarray, " ids"]
    rare: Int32[np.ndarray, " eligible"]
    """All eligible ids, where these are rare; empty otherwise."""


def require_languages(index: PairIndex, columns: Int[np.ndarray, " languages"], least: int) -> Eligibility:
    """Require at least `least` of some languages, given as columns of the index."""
    mask = np.empty(len(index.rows), bool)
    for start in range(0, len(mask), _CHUNK):
        has = index.rows[start : start + _CHUNK, columns] >= 0
        mask[start : start + _CHUNK] = np.count_nonzero(has, axis=1) >= least
    rare = np.count_nonzero(mask) < _RARE * len(mask)
    return Eligibility(mask, np.flatnonzero(mask if rare else []).astype(np.int32))


def count_passages(index: PairIndex, eligibility: Eligibility) -> int:
    """Count the different passages of the eligible ids."""
    seen = np.zeros(int(index.passages.max(initial=-1)) + 1, bool)
    seen[index.passages[eligibility.mask]] = True
    return int(np.count_nonzero(seen))


def replace_ineligible(
    index: PairIndex,
    eligibility: Eligibility,
    items: Int[np.ndarray, " batch"],
    accepted: Bool[np.ndarray, " batch"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " batch"]:
    """Replace the ids that are not accepted, or repeat a passage, by random eligible ones.

    Args:
        index: the table.
        eligibility: must allow ids of at least len(items) different passages.
        items: the ids.
        accepted: which of them may stay.
        rng: draws the others.
    """
    kept = np.flatnonzero(accepted)
    kept = kept[_mark_first_occurrences(index.passages[items[kept]])]
    missing = np.ones(len(items), bool)
    missing[kept] = False
    chosen, size = items[kept], 2 * (len(items) - len(kept))
    while len(chosen) < len(items):
        count = len(eligibility.rare) or len(eligibility.mask)
        drawn = rng.permutation(count) if size >= count else rng.integers(count, size=size)
        drawn = eligibility.rare[drawn] if len(eligibility.rare) else drawn[eligibility.mask[drawn]]
        chosen = np.concatenate([chosen, drawn])
        chosen = chosen[_mark_first_occurrences(index.passages[chosen])]
        size *= 4
    items = items.copy()
    items[missing] = chosen[len(kept) : len(items)]
    return items


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
    index: PairIndex,
    items: Int[np.ndarray, " items"],
    columns: Int[np.ndarray, " languages"],
    weights: Float[np.ndarray, " languages"],
    count: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "items count"]:
    """Draw for each id `count` different ones of some languages that it has, as columns of the index.

    They are drawn one after the other, each in proportion to its weight among what is left. That is the order in
    which exponential clocks with these rates ring (Efraimidis and Spirakis 2006).
    """
    rings = rng.standard_exponential((len(items), len(weights)), np.float32) / weights.astype(np.float32)
    # A whole row of the index lies together in memory, so it is taken before its columns are chosen.
    rings[index.rows.take(items, axis=0)[:, columns] < 0] = np.inf
    drawn = np.empty((len(items), count), np.int64)
    everyone = np.arange(len(items))
    for position in range(count):
        drawn[:, position] = rings.argmin(axis=1)
        rings[everyone, drawn[:, position]] = np.inf
    return columns[drawn]
