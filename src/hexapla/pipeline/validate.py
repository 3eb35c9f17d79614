"""Keep the rows that meet every expectation; put the others aside with their reasons."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hexapla.config import Benchmark
from hexapla.config_data import Executor, Validate
from hexapla.data.validate import checks, rounds
from hexapla.data.validate.contamination import counts, gather
from hexapla.data.validate.rounds import Part, Related
from hexapla.data.validate.tally import Tally
from hexapla.data.validate.tally import summary as summarise
from hexapla.io import cache, tables
from hexapla.schema import PAIR_COLUMNS, QUALITY_COLUMNS, UserError

_COLUMNS = (*PAIR_COLUMNS, *QUALITY_COLUMNS)
_NEGATIVES = PAIR_COLUMNS.index("negatives")
_LISTED = ("id", "lang", "column", "overlap", "benchmark", "benchmark_language", "benchmark_text")
_log = logging.getLogger(__name__)


def validate(
    validate: Validate,
    benchmarks: tuple[Benchmark, ...],
    executor: Executor,
    *,
    pairs: Path,
    data: Path,
    out: Path,
    quarantine: Path,
    summary: Path,
    docs: Path,
    contamination: Path,
) -> None:
    """Write the kept rows to `out`, part by part, and the rejected ones to `quarantine`.

    Texts that may not be negatives are dropped from the kept rows. `data` holds the benchmarks as `collect`
    left them; `contamination` lists what of them stood in the table. When too few rows are kept, `out` is not
    written, but all else is, so that one can see why.
    """
    tables.refuse_other(out)
    files = _files(pairs)
    texts = gather({entry.name: data / entry.name for entry in benchmarks})
    parts = rounds.first_round(files, texts, validate, executor)
    with cache.scratch_folder("validating") as room:
        keys = rounds.keys(parts, room)
        related = rounds.relate(keys, room)
        kept = ~keys.failed & ~related.failed
    tally = Tally()
    rejected = _rejected(parts, related, kept, tally)
    tables.write_pairs(quarantine, rejected, extra=[*QUALITY_COLUMNS, "reasons", "match"])
    _warn_of_strangers(validate, tally)
    checks.write_pages(docs, tally.pages)
    cache.write_json(summary, summarise(tally, validate, counts(texts)))
    cache.write_csv(contamination, _LISTED, _listed(parts))
    if not kept.any() or kept.mean() < validate.min_kept:
        shutil.rmtree(out, ignore_errors=True)  # an earlier run's, no part of the reports beside it
        raise UserError(_too_few(tally, validate.min_kept, quarantine))
    with cache.atomic_folder(out) as folder:
        _write_kept(parts, kept, folder)
    _log.info("kept %s of %s rows", f"{kept.sum():,}", f"{len(kept):,}")


def _warn_of_strangers(validate: Validate, tally: Tally) -> None:
    """Bounds for a language or a source that no row has are a typing error, most likely."""
    for place, section in enumerate(("languages", "sources")):
        for name in sorted(set(getattr(validate, section)) - {group[place] for group in tally.rows}):
            _log.warning("validate.%s.%s: no row has it", section, name)


def _files(pairs: Path) -> list[Path]:
    """The table's parts; UserError unless they have the columns that `translate` writes, and rows."""
    schema = tables.schema(pairs)
    if list(schema.names) != list(_COLUMNS):
        wrong = next((name for name in _COLUMNS if name not in schema.names), None)
        why = (
            f"column '{wrong}' is missing" if wrong else f"its columns are not exactly {', '.join(_COLUMNS)}"
        )
        raise UserError(f"{pairs}: {why}; run `dvc repro`")
    for name in PAIR_COLUMNS[:_NEGATIVES]:
        if str(kind := schema.field(name).type) not in ("string", "large_string"):
            raise UserError(f"{pairs}: column '{name}' holds {kind}, wants text; run `dvc repro`")
    for name, wanted in tables.QUALITY_TYPES.items():
        if not (kind := schema.field(name).type).equals(wanted):
            raise UserError(f"{pairs}: column '{name}' holds {kind}, wants {wanted}; run `dvc repro`")
    files = [file for file in tables.table_files(pairs) if tables.count_rows(file)]
    if not files:
        raise UserError(f"{pairs}: no rows; look at what `collect` and `translate` kept")
    return files


def _rejected(parts: Sequence[Part], related: Related, kept: np.ndarray, tally: Tally) -> Iterator[Any]:
    """The rows that are not kept, with reasons and match; the `tally` gets all that is to be told."""
    for part, at, judged in rounds.each(parts):
        own = kept[at : at + part.rows]
        groups, further = rounds.second_round(judged, related, at)
        tally.add(groups, judged.columns["group"], own)
        tally.add_negatives(judged.columns["faults"], own)
        tally.add_hits(judged.hits)
        if own.all():
            continue
        matches: dict[int, list[str]] = {}
        for hit in judged.hits:
            if hit.column != "negatives":
                matches.setdefault(hit.row, []).append(str(hit))
        for row, values in enumerate(_rows(part)):
            if not own[row]:
                first = judged.columns["reasons"][row]
                reasons = "; ".join([*([first] if first else []), *further[row]])
                yield *values, reasons, "; ".join(matches.get(row, ())) or None


def _rows(part: Part) -> Iterator[tuple[Any, ...]]:
    for batch in tables.stream_batches(part.file):
        yield from zip(*(batch.column(name).to_pylist() for name in _COLUMNS), strict=True)


def _listed(parts: Sequence[Part]) -> Iterator[list[Any]]:
    for part in parts:
        yield from ([getattr(hit, name) for name in _LISTED] for hit in rounds.hits(part))


def _write_kept(parts: Sequence[Part], kept: np.ndarray, folder: Path) -> None:
    for part, at, judged in rounds.each(parts):
        own = kept[at : at + part.rows]
        if own.any():
            rows = _kept(part, own, judged.columns["faults"])
            tables.write_pairs(folder / part.file.name, rows, extra=QUALITY_COLUMNS)


def _kept(part: Part, kept: np.ndarray, faults: tables.Ragged) -> Iterator[tuple[Any, ...]]:
    """The part's rows that are kept, without what may not be a negative."""
    ends = np.cumsum(faults.lengths)
    good = faults.values == 0
    for row, values in enumerate(_rows(part)):
        if kept[row]:
            own = good[ends[row] - faults.lengths[row] : ends[row]]
            texts = values[_NEGATIVES] or ()
            negatives = [text for text, so in zip(texts, own, strict=True) if so]
            yield *values[:_NEGATIVES], negatives, *values[_NEGATIVES + 1 :]


def _too_few(tally: Tally, min_kept: float, quarantine: Path) -> str:
    rows, kept = tally.rows.total(), tally.kept.total()
    worst = sorted(tally.rejected.items(), key=lambda item: -item[1])
    takes = ", ".join(f"{name} {count:,}" for name, count in worst if count)
    wanted = f"validate.min_kept is {min_kept}" if kept else "nothing is left to train on"
    return f"{quarantine}: kept {kept:,} of {rows:,} rows ({wanted}); mend what was rejected by: {takes}"
