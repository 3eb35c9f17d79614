"""The texts of a language that wait for translation, each different one in one shard of work.

A part of the table owns the texts that come in it first, and its shards are cut from those: so a part that
is added after the others changes no shard of theirs. A shard's translations are one file, named by the hash
of all that they depend on. What is there is not done again; what is not can be done anywhere, in any order.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from hexapla.data.translate.parallel import Translations, bundles, wanted
from hexapla.io import cache, hashing, tables
from hexapla.schema import UserError

VERSION = 1
"""Part of every name: one more whenever the same texts and engine come to give other translations."""

_COLUMN = "translations"


class Plan(NamedTuple):
    """Where the translation of each text that a language wants is to be found."""

    lang: str
    parts: Sequence[Path]
    size: int
    """Texts of a shard; the last of a part may have fewer."""
    ranks: np.ndarray
    """int64 [texts wanted], mapped: of each, in order of the parts, its place among the different ones."""
    starts: list[int]
    """[parts + 1]: where each part's texts begin in `ranks`."""
    owned: list[int]
    """[parts + 1]: the first of the ranks that each part owns."""

    def part(self, number: int) -> np.ndarray:
        """Ranks of the texts that a part wants."""
        return np.asarray(self.ranks[self.starts[number] : self.starts[number + 1]])


def texts(part: Path, lang: str) -> Iterator[str]:
    """What a part wants translated, in order, equal texts as often as they come."""
    return chain.from_iterable(wanted(bundle, lang) for bundle in bundles(part))


def plan(parts: Sequence[Path], lang: str, size: int) -> Plan:
    """Reads the table once and keeps 8 bytes a text, in a file that is gone when this process is."""
    starts = [0]
    with _scratch() as file:
        for part in parts:
            keys = hashing.digests(texts(part, lang))
            file.write(keys.data)  # which tells of a full disk as `tofile` does not
            starts.append(starts[-1] + len(keys))
        file.flush()
        total = starts[-1]
        first = (
            hashing.first_occurrences(np.memmap(file, "<u8", "r", shape=(total, 2)))
            if total
            else np.empty(0, int)
        )
    new = first == np.arange(total)
    owned = [0, *np.cumsum([np.count_nonzero(new[a:b]) for a, b in pairwise(starts)])]
    ranks = np.cumsum(new)[first] - 1
    return Plan(lang, parts, size, _mapped(ranks), starts, [int(rank) for rank in owned])


def _scratch() -> IO[bytes]:
    """A file without a name, so that not even a killed process leaves it behind."""
    cache.cache_root().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=cache.cache_root())


def _mapped(values: np.ndarray) -> np.ndarray:
    if not len(values):
        return values
    with _scratch() as file:
        # Written, not mapped and then filled: on a full disk that would have the process killed.
        file.write(np.ascontiguousarray(values).data)
        file.flush()
        return np.memmap(file, values.dtype, "r", shape=values.shape)


# --- shards ----------------------------------------------------------------------------------


def shards(plan: Plan, number: int, identity: str) -> Iterator[tuple[str, list[str]]]:
    """Key and texts of the shards that a part owns; `identity` is the engine's, for the language."""
    ranks, places = np.unique(plan.part(number), return_index=True)
    own = set(places[ranks >= plan.owned[number]].tolist())
    mine = [text for at, text in enumerate(texts(plan.parts[number], plan.lang)) if at in own]
    for at in range(0, len(mine), plan.size):
        shard = mine[at : at + plan.size]
        yield named("texts", VERSION, plan.lang, identity, *shard), shard


def named(*told: object) -> str:
    """SHA-256 over some values in order; no two lists of values have the same but by chance."""
    digest = hashlib.sha256()
    for value in told:
        data = str(value).encode()
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def place(key: str) -> Path:
    """The file that a shard's translations are kept in."""
    return cache.entry("translate", key)


def held(file: Path, rows: int) -> bool:
    """Whether a result is there, with as many rows as it must have."""
    try:
        return tables.count_rows(file) == rows
    except UserError:
        return False


def lost(file: Path) -> UserError:
    """To raise where a result that was there can't be read; removes it, so that it will be made again."""
    file.unlink(missing_ok=True)
    return UserError(f"{file}: broken or gone; run `dvc repro` again, which makes it anew")


def keep(key: str, translations: Sequence[Translations]) -> None:
    values = np.array([text for found in translations for text in found], object)
    lengths = np.array([len(found) for found in translations], np.int64)
    tables.write_columns(place(key), {_COLUMN: tables.Ragged(values, lengths)})


def kept(key: str) -> list[Translations]:
    """What `keep` kept.

    Raises:
        UserError: it is gone, or can't be read; then it is removed, so that it will be made again.
    """
    try:
        column = tables.read_columns(place(key))[_COLUMN]
    except (UserError, KeyError) as error:
        raise lost(place(key)) from error
    assert isinstance(column, tables.Ragged)
    values, ends = column.values.tolist(), np.cumsum(column.lengths).tolist()
    return [tuple(values[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def translations(plan: Plan, number: int, keys: Sequence[Sequence[str]]) -> list[Translations]:
    """For each text that a part wants its translations, each needed shard being read once.

    Args:
        plan: of the language.
        number: of the part.
        keys: by part, those of its shards.
    """
    ranks, places = np.unique(plan.part(number), return_inverse=True)
    owners = np.searchsorted(plan.owned, ranks, side="right") - 1
    offsets = ranks - np.asarray(plan.owned)[owners]
    at = zip(owners.tolist(), (offsets // plan.size).tolist(), (offsets % plan.size).tolist(), strict=True)
    found = list(chain.from_iterable(_picked(keys[o][s], group) for (o, s), group in groupby(at, _shard)))
    return [found[place] for place in places]


def _shard(at: tuple[int, int, int]) -> tuple[int, int]:
    return at[:2]


def _picked(key: str, places: Iterable[tuple[int, int, int]]) -> list[Translations]:
    found = kept(key)
    return [found[place] for _, _, place in places]
