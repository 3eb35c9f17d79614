"""Keep the rows that meet every rule; put the others aside with the reasons against them."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from hexapla.config import Benchmark, Executor, Validate
from hexapla.data.validate import contamination as benchmark_texts
from hexapla.data.validate import passes
from hexapla.data.validate import summary as results
from hexapla.data.validate.passes import RowRelations, TablePart
from hexapla.data.validate.summary import ValidationTally
from hexapla.io import cache, tables
from hexapla.schema import PAIR_COLUMNS, QUALITY_COLUMNS, UserError

_COLUMNS = (*PAIR_COLUMNS, *QUALITY_COLUMNS)
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
    """Write the rows that pass every check, and apart from them the rejected rows with the reasons.

    Texts that may not be negatives are dropped from the kept rows. When too few rows are kept, `out` is not
    written, but everything else is, to show why.

    Args:
        validate: the section of params.yaml.
        benchmarks: the benchmarks of params.yaml.
        executor: where the work runs.
        pairs: the table that `translate` wrote.
        data: the folder of the benchmarks, as `collect` left them.
        out: the folder that gets the kept rows, part by part.
        quarantine: the Parquet file that gets the rejected rows.
        summary: the JSON file that gets the counts.
        docs: the folder that gets a page which shows the summary.
        contamination: the CSV file that gets the benchmarks' texts that occur in the table.
    """
    cache.check_outputs(out, quarantine, summary, docs, contamination, inputs=[pairs, data])
    files = _list_files(pairs)
    texts = benchmark_texts.collect_texts({entry.name: data / entry.name for entry in benchmarks})
    parts = passes.run_row_pass(files, texts, validate, executor)
    with cache.scratch_folder("validating") as folder:
        keys = passes.load_keys(parts, folder)
        relations = passes.relate_rows(keys, folder)
        kept = ~keys.failed & ~relations.failed
    tally = ValidationTally()
    rejected = _iter_rejected(parts, relations, kept, tally)
    tables.write_batches(quarantine, rejected, extra=[*QUALITY_COLUMNS, "reasons", "match"])
    _warn_of_unused_bounds(validate, tally)
    tree = results.summarize(tally, validate, benchmark_texts.count_texts(texts))
    cache.write_json(summary, tree)
    results.write_page(docs, results.render_page(tree, tally))
    cache.write_csv(contamination, _LISTED, _iter_matches(parts))
    if not kept.any() or kept.mean() < validate.min_kept:
        shutil.rmtree(out, ignore_errors=True)  # what an earlier run kept does not belong to this summary
        raise UserError(_describe_too_few(tally, validate.min_kept, quarantine))
    with cache.atomic_folder(out) as folder:
        _write_kept(parts, kept, folder)
    _log.info("kept %s of %s rows", f"{kept.sum():,}", f"{len(kept):,}")


def _warn_of_unused_bounds(validate: Validate, tally: ValidationTally) -> None:
    """Warn of bounds for a language or a source that no row has, most likely a typing error."""
    for place, section in enumerate(("languages", "sources")):
        for name in sorted(set(getattr(validate, section)) - {group[place] for group in tally.rows}):
            _log.warning("validate.%s.%s: no row has it", section, name)


def _list_files(pairs: Path) -> list[Path]:
    """Return the table's parts; a UserError unless they have rows, and the columns that `translate` writes."""
    schema = tables.schema(pairs)
    if list(schema.names) != list(_COLUMNS):
        wrong = next((name for name in _COLUMNS if name not in schema.names), None)
        why = (
            f"column '{wrong}' is missing" if wrong else f"its columns are not exactly {', '.join(_COLUMNS)}"
        )
        raise UserError(f"{pairs}: {why}; run `dvc repro`")
    for name in PAIR_COLUMNS[:-1]:
        if str(kind := schema.field(name).type) not in ("string", "large_string"):
            raise UserError(f"{pairs}: column '{name}' holds {kind}, wants text; run `dvc repro`")
    for name, wanted in tables.QUALITY_TYPES.items():
        if not (kind := schema.field(name).type).equals(wanted):
            raise UserError(f"{pairs}: column '{name}' holds {kind}, wants {wanted}; run `dvc repro`")
    files = [file for file in tables.table_files(pairs) if tables.count_rows(file)]
    if not files:
        raise UserError(f"{pairs}: no rows; look at what `collect` and `translate` kept")
    return files


def _iter_rejected(
    parts: Sequence[TablePart],
    relations: RowRelations,
    kept: Bool[np.ndarray, " rows"],
    tally: ValidationTally,
) -> Iterator[Any]:
    """Yield the rows that are not kept, with reasons and matches, and add every part to the tally."""
    for part, at, result in passes.iter_row_passes(parts):
        own = kept[at : at + part.rows]
        groups, further = passes.run_table_pass(result, relations, at)
        tally.add(groups, result.columns["group"], own)
        tally.add_negatives(result.columns["faults"], own)
        tally.add_matches(result.matches)
        if own.all():
            continue
        matches: dict[int, list[str]] = {}
        for match in result.matches:
            if match.column != "negatives":
                matches.setdefault(match.row, []).append(str(match))
        rows = np.flatnonzero(~own).tolist()
        first = result.columns["reasons"]
        reasons = ["; ".join([*([first[row]] if first[row] else []), *further[row]]) for row in rows]
        found = ["; ".join(matches.get(row, ())) or None for row in rows]
        yield from tables.filter_batches(part.file, ~own, more={"reasons": reasons, "match": found})


def _iter_matches(parts: Sequence[TablePart]) -> Iterator[list[Any]]:
    for part in parts:
        yield from ([getattr(match, name) for name in _LISTED] for match in passes.load_matches(part))


def _write_kept(parts: Sequence[TablePart], kept: Bool[np.ndarray, " rows"], folder: Path) -> None:
    """Write the kept rows of each part, without texts that may not be negatives."""
    for part, at, result in passes.iter_row_passes(parts):
        own = kept[at : at + part.rows]
        if own.any():
            faults = result.columns["faults"]
            good = tables.Ragged(faults.values == 0, faults.lengths)
            batches = tables.filter_batches(part.file, own, negatives=good)
            tables.write_batches(folder / part.file.name, batches, extra=QUALITY_COLUMNS)


def _describe_too_few(tally: ValidationTally, min_kept: float, quarantine: Path) -> str:
    rows, kept = tally.rows.total(), tally.kept.total()
    ordered = sorted(tally.rejected.items(), key=lambda item: -item[1])
    by_rule = ", ".join(f"{name} {count:,}" for name, count in ordered if count)
    wanted = f"validate.min_kept is {min_kept}" if kept else "nothing is left to train on"
    return f"{quarantine}: kept {kept:,} of {rows:,} rows ({wanted}); mend what was rejected by: {by_rule}"
