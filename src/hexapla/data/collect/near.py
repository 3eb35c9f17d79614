"""Near duplicates: pairs whose questions and whose passages are both almost the same.

Similarity is Jaccard's over the shingles of the normalised texts, estimated by MinHash (Broder 1997; the
signatures are Fast Similarity Sketches, Dahlgaard et al. 2017, arXiv 1704.04370). Candidates come from one
banded index over both texts (joint LSH): a bucket's key is made of values of the question's signature and
of the passage's, so that the many questions on one passage, or one question asked of many passages, do not
meet in it. Only English is compared.

The signatures are `rensa`'s, in Rust, MIT: against datasketch, which would spend 150 µs on every text, it
spends 2. Its estimates are unbiased, and their variance is below the binomial one, from 5 shingles to 300;
they do not depend on threads or processor, but on its `ALGORITHM_VERSION`, which `version` names.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
from tqdm import tqdm

from hexapla.io import cache, hashing
from hexapla.text import normalize

_SHINGLE = 5
"""Characters; about a word, as spaces do not count."""
_VALUES = 80
"""Of a text's signature; the estimate's standard deviation at 0.8 is 0.045."""
_SEED = 1
_MOST = 1 << 16
"""Characters of a text that are looked at."""
_AT_ONCE = 1 << 20
"""Characters that are hashed at a time."""
_ROUNDS = 8
"""How many of a bucket's rows the others are compared with."""
_FOUND = 0.95
_PAIRS = 1 << 16

SIGNATURE = np.dtype([("apart", "<u8"), ("question", "u1", _VALUES), ("passage", "u1", _VALUES)])
"""Of a pair, 168 bytes. The last 8 bits of each MinHash value are kept (b-bit minwise hashing, Li and König
2010, arXiv 0910.3349). Rows that differ in `apart` are not near, however similar: 1910 and 1920 are
other questions on the same passage, and one letter is much of a short text."""


def version() -> str:
    """Signatures of different versions can't be compared."""
    from rensa import RMinHash

    return f"near-{cache.code(sys.modules[__name__], normalize, hashing)[:16]}-{RMinHash.ALGORITHM_VERSION}"


# --- signatures ----------------------------------------------------------------------------------


def sign(questions: Sequence[str], passages: Sequence[str]) -> np.ndarray:
    """The pairs' signatures, `SIGNATURE` [pairs]."""
    signed = np.zeros(len(questions), SIGNATURE)
    plain = {"question": normalize.normalize_texts(questions), "passage": normalize.normalize_texts(passages)}
    for name, texts in plain.items():
        signed[name] = _sketches(texts)
    signed["apart"] = hashing.digests(map(_apart, *plain.values()))[:, 0]
    return signed


def _apart(question: str, passage: str) -> str:
    """What must be the same: the numbers asked for, and whatever is shorter than a shingle."""
    digits = "".join(filter(str.isdigit, question))
    return "\n".join([digits, *(text if len(text) < _SHINGLE else "" for text in (question, passage))])


def _sketches(texts: Sequence[str]) -> np.ndarray:
    """Signatures of normalised texts, uint8 [texts, values]."""
    from rensa import RMinHash

    parts = [np.zeros((0, _VALUES), np.uint8)]
    for batch in _batches(texts):
        hashes, offsets = _shingles(batch)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, _VALUES, _SEED).to_rows()
        values = np.fromiter(chain.from_iterable(rows), np.uint32, len(batch) * _VALUES)
        # Of the bits, all have a say in those that are kept.
        values *= np.uint32(0x9E3779B1)
        parts.append((values >> np.uint32(24)).astype(np.uint8).reshape(-1, _VALUES))
    return np.concatenate(parts)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, 1)):
        size = len(batch[0])
        while size < _AT_ONCE and (text := next(rest, None)) is not None:
            batch.append(text)
            size += min(len(text), _MOST)
        yield [text[:_MOST] for text in batch]


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all texts' shingles, uint64, and where each text's begin and end, uint64 [texts + 1].

    Before and after each text stand as many blanks as a shingle has characters, less one, so that a
    character counts as much at the end of a text as within it.
    """
    blanks = "\0" * (_SHINGLE - 1)
    hashes = normalize.hash_shingles(normalize.code_points(blanks.join(("", *texts, ""))), _SHINGLE)
    lengths = [len(text) + _SHINGLE - 1 for text in texts]
    return hashes, np.cumsum([0, *lengths]).astype(np.uint64)


def similarity(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of texts by their signatures, uint8 [texts, values]; float [texts]."""
    agreed: np.ndarray = (some == others).mean(axis=1)
    return (agreed - 1 / 256) / (1 - 1 / 256)


# --- the index -----------------------------------------------------------------------------------


def bands(threshold: float) -> tuple[int, int]:
    """How many bands of how many values of either text find pairs that are just similar enough.

    The more values, the fewer others are met; so it is the most with which 95 % are found. From 0.79 on
    these are 20 bands of 4 and 4 values: of 10 million rows whose similarity is 0.05 some 70,000 of 5e13
    pairs meet. Below 0.69 there are so few values that large tables take long.
    """
    for values in (4, 3):
        count = _VALUES // values
        if 1 - (1 - threshold ** (2 * values)) ** count >= _FOUND:
            return count, values
    return _VALUES // 2, 2


def first_near(signatures: np.ndarray, rows: np.ndarray, threshold: float) -> np.ndarray:
    """For each row the kept one before it that it is near to, itself if it is to be kept; int64 [rows].

    A row goes only for one that stays: of A, B, C, each near to the next alone, B goes.

    Args:
        signatures: of the whole table; may be a mapped file.
        rows: the places in it, ascending, that are compared.
        threshold: the least similarity, of questions and of passages.
    """
    leaders = np.arange(len(rows))
    count, values = bands(threshold)
    for band in tqdm(range(count), "near duplicates", unit=" bands", disable=None):
        for later, earlier in _matches(signatures, rows, _keys(signatures, rows, band, values), threshold):
            leaders[later] = np.minimum(leaders[later], earlier)
    settled: np.ndarray = rows[_settled(leaders, signatures, rows, threshold)]
    return settled


def _keys(signatures: np.ndarray, rows: np.ndarray, band: int, values: int) -> np.ndarray:
    """The rows' buckets in a band, uint64 [rows, 2]."""
    keys = np.empty((len(rows), 2), np.uint64)
    mine = slice(band * values, (band + 1) * values)
    for at in range(0, len(rows), _PAIRS):
        some = signatures[rows[at : at + _PAIRS]]
        packed = np.zeros((len(some), 8), np.uint8)
        packed[:, :values] = some["question"][:, mine]
        packed[:, 4 : 4 + values] = some["passage"][:, mine]
        keys[at : at + _PAIRS, 0] = packed.view("<u8")[:, 0]
        keys[at : at + _PAIRS, 1] = some["apart"]
    return keys


def _matches(
    signatures: np.ndarray, rows: np.ndarray, keys: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places among `rows` of pairs (later, earlier) that met in a bucket and are near."""
    places = np.arange(len(rows))
    for _ in range(_ROUNDS):
        leaders = places[hashing.first_occurrences(keys)]
        met = np.flatnonzero(leaders != places)
        near = _alike(signatures, rows[places[met]], rows[leaders[met]], threshold)
        yield places[met[near]], leaders[met[near]]
        # The others may be near to one another.
        places, keys = places[met[~near]], keys[met[~near]]
        if not len(places):
            break


def _alike(signatures: np.ndarray, some: np.ndarray, others: np.ndarray, threshold: float) -> np.ndarray:
    """Whether the rows at these places are near, bool [pairs]."""
    near = np.zeros(len(some), bool)
    for at in range(0, len(some), _PAIRS):
        one, two = (signatures[places[at : at + _PAIRS]] for places in (some, others))
        least = np.minimum(*(similarity(one[name], two[name]) for name in ("question", "passage")))
        near[at : at + _PAIRS] = least >= threshold
    return near


def _settled(leaders: np.ndarray, signatures: np.ndarray, rows: np.ndarray, threshold: float) -> np.ndarray:
    """The same, but no row goes for one that goes: it goes for that one's, if it is near to it as well."""
    chained = np.flatnonzero(leaders[leaders] != leaders)
    for place in chained.tolist():  # ascending, so that those before are settled
        kept = leaders[leaders[place]]
        if kept != leaders[place]:
            near = _alike(signatures, rows[[place]], rows[[kept]], threshold)[0]
            leaders[place] = kept if near else place
    return leaders
