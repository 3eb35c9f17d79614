"""Remove duplicates: each pair stays once, and of near duplicates the first one stays.

Rows are compared by hashes, which lie in files; memory holds some bytes a row.

Near duplicates are pairs whose questions and whose passages are both almost the same. Similarity is Jaccard's over
the shingles of the normalized texts, estimated by MinHash (Broder 1997; the signatures are Fast Similarity
Sketches, Dahlgaard et al. 2017, arXiv 1704.04370). Pairs to compare come from one banded index over both texts
(joint LSH): a bucket's key is made of values of the question's signature and of the passage's, so that the many
questions on one passage, or one question asked of many passages, do not meet in it. Only English is compared.

The signatures are `rensa`'s, in Rust, MIT: datasketch would spend 150 µs on every text, rensa spends 2. Its estimates
are unbiased, and their variance is below the binomial one, from 5 shingles to 300; they depend not on threads or
processor, but on its `ALGORITHM_VERSION`.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8, UInt64
from tqdm import tqdm

from hexapla.data.collect.rows import hash_content
from hexapla.io import cache, hashing, tables
from hexapla.schema import SOURCE_LANGUAGE, Pair
from hexapla.text import languages, normalize

SIGNATURE_FORMAT = 1
"""Part of the names of cached signatures: raise it when the same texts would get other signatures."""

KEPT, DUPLICATE, NEAR_DUPLICATE, REPEATED, WITHOUT_ENGLISH = range(5)
"""Possible fates of a row. Translations share the fate of their English row, except that `REPEATED` is a translation
that came before and `WITHOUT_ENGLISH` one whose id has no English row."""

_BATCH_ROWS = 4096
_STRETCH = 1 << 20
_KEYS = np.dtype([("row", "<u8", 2), ("english", "<u8", 2), ("content", "<u8", 2)])
"""Hashes of a row's id and language, of its id and English, and of its question and passage."""


class RowFates(NamedTuple):
    """What becomes of each row, in the order of the parts."""

    fates: UInt8[np.ndarray, " rows"]
    owners: Int64[np.ndarray, " rows"]
    """The position of a row's English row: its own for an English one, -1 where there is none."""


def find_duplicates(
    parts: Sequence[Path],
    threshold: float,
    folder: Path,
    make_error: Callable[[tuple[int, int], tuple[int, int]], Exception],
) -> RowFates:
    """Decide which rows stay.

    Args:
        parts: tables, in order; a pair in several languages has a row a language, in any places.
        threshold: the least similarity of near duplicates; 1 removes equal pairs only.
        folder: for arrays that memory might not hold.
        make_error: makes the exception to raise for two rows, each (part, row in it), of one id and language
            whose texts differ.
    """
    sizes = [tables.count_rows(part) for part in parts]
    keys = _hash_rows(parts, sizes, folder / "keys")
    same = hashing.first_occurrences(keys["row"])
    repeated = np.flatnonzero(same != np.arange(len(same)))
    if conflict := _find_conflict(keys, same, repeated):
        raise make_error(*(_locate(position, sizes) for position in conflict))
    fates = np.zeros(len(keys), np.uint8)
    fates[repeated] = REPEATED
    english = _find_english(keys)
    owners = _find_owners(keys, english)
    fates[owners < 0] = WITHOUT_ENGLISH
    # A repeated English row is a duplicate like any other.
    equal = hashing.first_occurrences(keys["content"][english])
    again = equal != np.arange(len(equal))
    fates[english] = np.where(again, DUPLICATE, KEPT)
    if threshold < 1:
        signatures = _load_signatures(parts, len(english), folder / "signatures")
        left = np.flatnonzero(~again)
        near = find_first_near(signatures, left, threshold) != left
        fates[english[left[near]]] = NEAR_DUPLICATE
    others = np.flatnonzero((fates == KEPT) & (owners >= 0))
    fates[others] = fates[owners[others]]
    return RowFates(fates, owners)


def _hash_rows(parts: Sequence[Path], sizes: Sequence[int], file: Path) -> np.ndarray:
    """Return `_KEYS` [rows], in a mapped file."""
    keys = cache.scratch_array(file, sum(sizes), _KEYS)
    position = 0
    for part in tqdm(parts, "duplicates", unit=" parts", disable=None):
        for rows in _batch_pairs(tables.stream_pairs(part)):
            batch = keys[position : position + len(rows)]
            batch["row"] = hashing.digests(f"{row.lang}\0{row.id}" for row in rows)
            batch["english"] = hashing.digests(f"{SOURCE_LANGUAGE}\0{row.id}" for row in rows)
            contents = b"".join(hash_content(row.question, row.passage) for row in rows)
            batch["content"] = np.frombuffer(contents, "<u8").reshape(-1, 2)
            position += len(rows)
    return keys


def _find_conflict(keys: np.ndarray, same: np.ndarray, repeated: np.ndarray) -> tuple[int, int] | None:
    """Return the positions of the first two rows that share id and language but not their content."""
    for at in range(0, len(repeated), _STRETCH):
        some = repeated[at : at + _STRETCH]
        differ = (keys["content"][some] != keys["content"][same[some]]).any(axis=1)
        if differ.any():
            position = int(some[differ.argmax()])
            return int(same[position]), position
    return None


def _locate(position: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Return the part, and the row in it, of a position among all rows."""
    ends = np.cumsum(sizes)
    part = int(np.searchsorted(ends, position, side="right"))
    return part, position - int(ends[part]) + sizes[part]


def _find_english(keys: np.ndarray) -> Int64[np.ndarray, " english"]:
    """Return the positions of the English rows."""
    positions = [
        at + np.flatnonzero((part["row"] == part["english"]).all(axis=1))
        for at in range(0, len(keys), _STRETCH)
        for part in [keys[at : at + _STRETCH]]
    ]
    return np.concatenate([np.zeros(0, np.int64), *positions])


def _find_owners(keys: np.ndarray, english: np.ndarray) -> Int64[np.ndarray, " rows"]:
    """Return for each row the position of the first English row that has its id, -1 if none has."""
    if len(english) == len(keys):
        return np.arange(len(keys))
    owners = np.full(len(keys), -1)
    owners[english] = english
    others = np.flatnonzero(owners < 0)
    ids = np.concatenate([keys["english"][english], keys["english"][others]])
    first = hashing.first_occurrences(ids)[len(english) :]
    has_owner = first < len(english)
    owners[others[has_owner]] = english[first[has_owner]]
    return owners


def _batch_pairs(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    while rows := list(islice(pairs, _BATCH_ROWS)):
        yield rows


# --- signatures ----------------------------------------------------------------------------------

_SHINGLE = 5
"""Characters of a shingle; about a word, as spaces do not count."""
_VALUES = 80
"""Values of a text's signature; the estimate's standard deviation at 0.8 is 0.045."""
_SEED = 1
_LONGEST = 1 << 16
"""Characters of a text that are looked at."""
_HASHED_CHARS = 1 << 20
"""Characters that are hashed at a time."""

SIGNATURE = np.dtype([("apart", "<u8"), ("question", "u1", _VALUES), ("passage", "u1", _VALUES)])
"""A pair's signature, 168 bytes. The last 8 bits of each MinHash value are kept (b-bit minwise hashing, Li and König
2010, arXiv 0910.3349). Rows that differ in `apart` are not near, however similar: questions about 1910 and about 1920
on the same passage differ, and one letter is much of a short text."""


def name_signatures() -> str:
    """Return a name for the kind of signatures that this code makes; different kinds can't be compared."""
    from rensa import RMinHash

    return f"near-{SIGNATURE_FORMAT}-{unicodedata.unidata_version}-{RMinHash.ALGORITHM_VERSION}"


def _load_signatures(parts: Sequence[Path], count: int, file: Path) -> np.ndarray:
    """Return `SIGNATURE` [rows] of all English rows, in a mapped file; each part's are cached next to the part."""
    signatures = cache.scratch_array(file, count, SIGNATURE)
    position, name = 0, name_signatures()
    for part in tqdm(parts, "signatures", unit=" parts", disable=None):
        cached = part.with_name(f"{part.stem}.{name}.npy")
        if not cached.is_file():
            with cache.atomic_file(cached) as temporary, temporary.open("wb") as stream:
                np.save(stream, _sign_part(part))
        loaded = np.load(cached, mmap_mode="r")
        signatures[position : position + len(loaded)] = loaded
        position += len(loaded)
    return signatures


def _sign_part(part: Path) -> np.ndarray:
    english = (row for row in tables.stream_pairs(part) if row.lang == SOURCE_LANGUAGE)
    batches = [
        sign_pairs([row.question for row in rows], [row.passage for row in rows])
        for rows in _batch_pairs(english)
    ]
    return np.concatenate([np.zeros(0, SIGNATURE), *batches])


def sign_pairs(questions: Sequence[str], passages: Sequence[str]) -> np.ndarray:
    """Return the pairs' signatures, `SIGNATURE` [pairs]."""
    signatures = np.zeros(len(questions), SIGNATURE)
    plain = {"question": normalize.normalize_texts(questions), "passage": normalize.normalize_texts(passages)}
    for name, texts in plain.items():
        signatures[name] = _sketch(texts)
    signatures["apart"] = hashing.digests(map(_keep_apart, *plain.values()))[:, 0]
    return signatures


def _keep_apart(question: str, passage: str) -> str:
    """Return what near duplicates must share: the numbers in the question, and texts shorter than a shingle."""
    digits = "".join(filter(str.isdigit, question))
    return "\n".join([digits, *(text if len(text) < _SHINGLE else "" for text in (question, passage))])


def _sketch(texts: Sequence[str]) -> UInt8[np.ndarray, "texts values"]:
    """Return the signatures of normalized texts."""
    from rensa import RMinHash

    parts = [np.zeros((0, _VALUES), np.uint8)]
    for batch in _batch_texts(texts):
        hashes, offsets = _hash_texts(batch)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, _VALUES, _SEED).to_rows()
        values = np.fromiter(chain.from_iterable(rows), np.uint32, len(batch) * _VALUES)
        # The multiplication makes the 8 bits that are kept depend on all 32.
        values *= np.uint32(0x9E3779B1)
        parts.append((values >> np.uint32(24)).astype(np.uint8).reshape(-1, _VALUES))
    return np.concatenate(parts)


def _batch_texts(texts: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, 1)):
        size = len(batch[0])
        while size < _HASHED_CHARS and (text := next(rest, None)) is not None:
            batch.append(text)
            size += min(len(text), _LONGEST)
        yield [text[:_LONGEST] for text in batch]


def _hash_texts(
    texts: Sequence[str],
) -> tuple[UInt64[np.ndarray, " shingles"], UInt64[np.ndarray, " texts+1"]]:
    """Return the hashes of all texts' shingles, and where each text's begin and end.

    Each text has as many blanks before and after it as a shingle has characters, less one, so that a character
    counts as much at the end of a text as within it.
    """
    blanks = "\0" * (_SHINGLE - 1)
    hashes = normalize.hash_shingles(languages.code_points(blanks.join(("", *texts, ""))), _SHINGLE)
    lengths = [len(text) + _SHINGLE - 1 for text in texts]
    return hashes, np.cumsum([0, *lengths]).astype(np.uint64)


def estimate_similarity(
    some: UInt8[np.ndarray, "texts values"], others: UInt8[np.ndarray, "texts values"]
) -> Float[np.ndarray, " texts"]:
    """Return the estimated Jaccard similarity of texts by their signatures.

    Values of 8 bits agree by chance once in 256 times, which is subtracted.
    """
    agreed: np.ndarray = (some == others).mean(axis=1)
    return (agreed - 1 / 256) / (1 - 1 / 256)


# --- the index -----------------------------------------------------------------------------------

_ROUNDS = 8
"""Number of a bucket's rows that the others are compared with."""
_RECALL = 0.95
_COMPARED_PAIRS = 1 << 16


def choose_bands(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many values of either text find pairs that are just similar enough.

    The more values, the fewer other pairs meet, so it is the most with which 95 % are found. From 0.79 on these
    are 20 bands of 4 and 4 values: of 10 million rows whose similarity is 0.05 some 70,000 of 5e13 pairs meet.
    Below 0.69 there are so few values that large tables take long.
    """
    for values in (4, 3):
        count = _VALUES // values
        if 1 - (1 - threshold ** (2 * values)) ** count >= _RECALL:
            return count, values
    return _VALUES // 2, 2


def find_first_near(
    signatures: np.ndarray, rows: Int64[np.ndarray, " rows"], threshold: float
) -> Int64[np.ndarray, " rows"]:
    """Return for each row the kept one before it that it is near to, or itself if it stays.

    A row goes only for one that stays: of A, B, C, each near to the next alone, B goes.

    Args:
        signatures: `SIGNATURE` of the whole table; may be a mapped file.
        rows: the positions in it, ascending, that are compared.
        threshold: the least similarity, of questions and of passages.
    """
    leaders = np.arange(len(rows))
    count, values = choose_bands(threshold)
    for band in tqdm(range(count), "near duplicates", unit=" bands", disable=None):
        keys = _bucket_keys(signatures, rows, band, values)
        for later, earlier in _match_in_buckets(signatures, rows, keys, threshold):
            leaders[later] = np.minimum(leaders[later], earlier)
    settled: np.ndarray = rows[_settle_chains(leaders, signatures, rows, threshold)]
    return settled


def _bucket_keys(
    signatures: np.ndarray, rows: np.ndarray, band: int, values: int
) -> UInt64[np.ndarray, "rows 2"]:
    """Return the rows' buckets in a band."""
    keys = np.empty((len(rows), 2), np.uint64)
    own = slice(band * values, (band + 1) * values)
    for at in range(0, len(rows), _COMPARED_PAIRS):
        some = signatures[rows[at : at + _COMPARED_PAIRS]]
        packed = np.zeros((len(some), 8), np.uint8)
        packed[:, :values] = some["question"][:, own]
        packed[:, 4 : 4 + values] = some["passage"][:, own]
        keys[at : at + _COMPARED_PAIRS, 0] = packed.view("<u8")[:, 0]
        keys[at : at + _COMPARED_PAIRS, 1] = some["apart"]
    return keys


def _match_in_buckets(
    signatures: np.ndarray, rows: np.ndarray, keys: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions in `rows`, later and earlier, of pairs that met in a bucket and are near."""
    positions = np.arange(len(rows))
    for _ in range(_ROUNDS):
        leaders = positions[hashing.first_occurrences(keys)]
        met = np.flatnonzero(leaders != positions)
        near = _are_near(signatures, rows[positions[met]], rows[leaders[met]], threshold)
        yield positions[met[near]], leaders[met[near]]
        # The others may be near to one another.
        positions, keys = positions[met[~near]], keys[met[~near]]
        if not len(positions):
            break


def _are_near(
    signatures: np.ndarray, some: np.ndarray, others: np.ndarray, threshold: float
) -> Bool[np.ndarray, " pairs"]:
    """Return whether the rows at these positions are near."""
    near = np.zeros(len(some), bool)
    for at in range(0, len(some), _COMPARED_PAIRS):
        one, two = (signatures[positions[at : at + _COMPARED_PAIRS]] for positions in (some, others))
        least = np.minimum(*(estimate_similarity(one[name], two[name]) for name in ("question", "passage")))
        near[at : at + _COMPARED_PAIRS] = least >= threshold
    return near


def _settle_chains(
    leaders: Int64[np.ndarray, " rows"], signatures: np.ndarray, rows: np.ndarray, threshold: float
) -> Int64[np.ndarray, " rows"]:
    """Return the leaders so that no row goes for one that goes itself.

    Such a row goes for the other's leader if it is near to that as well; otherwise it stays.
    """
    chained = np.flatnonzero(leaders[leaders] != leaders)
    for place in chained.tolist():  # ascending, so that those before are settled
        kept = leaders[leaders[place]]
        if kept != leaders[place]:
            near = _are_near(signatures, rows[[place]], rows[[kept]], threshold)[0]
            leaders[place] = kept if near else place
    return leaders
