"""The stage `validate` on a table in a folder, with what it wrote."""

from functools import cache
from pathlib import Path

from conftest import LANGUAGES, SAMPLE
from hexapla.config import Executor, FolderBenchmark, Validate
from hexapla.data.translate import measures
from hexapla.io import cache as files
from hexapla.io import tables
from hexapla.pipeline.validate import validate
from hexapla.schema import PAIR_COLUMNS, QUALITY_COLUMNS
from hexapla.text.languages import Identifier

BENCHMARKS = (FolderBenchmark(name="benchmark", path=str(SAMPLE / "benchmark")),)
OUTPUTS = ("quarantine.parquet", "summary.json", "contamination.csv")


@cache
def identifier():
    return Identifier(LANGUAGES)


def with_quality(rows):
    """The rows as `translate` leaves them."""
    english = {row.id: row for row in reversed(rows) if row.lang == "en"}
    for row in rows:
        original = english.get(row.id) if row.lang != "en" else None
        yield *row, *measures.measure_row(row, original, identifier())


def write_table(path, rows, cut=None):
    """The rows, with their quality unless they have it, as one file or as parts of one language each."""
    rows = list(with_quality(rows) if rows and len(rows[0]) == len(PAIR_COLUMNS) else rows)
    if cut is None:
        tables.write_pairs(path, rows, extra=QUALITY_COLUMNS)
        return path
    for number, lang in enumerate(dict.fromkeys(row[2] for row in rows)):
        mine = [row for row in rows if row[2] == lang]
        for part, at in enumerate(range(0, len(mine), cut)):
            file = path / f"{number:02d}-{lang}-00-sample-{part:05d}.parquet"
            tables.write_pairs(file, mine[at : at + cut], QUALITY_COLUMNS)
    return path


class Run:
    """The stage on a table, and what it wrote to a folder."""

    def __init__(self, folder, pairs, benchmarks=BENCHMARKS, **settings):
        self.folder = folder
        # What a planted fault does to a row's numbers is not what most tests look at.
        chosen = Validate(**({"language": "off", "min_kept": 0.0, "min_numbers_kept": 0.0} | settings))
        paths = {Path(name).stem: folder / name for name in ("out", "docs", *OUTPUTS)}
        validate(chosen, benchmarks, Executor(workers=1), pairs=pairs, data=SAMPLE, **paths)

    @property
    def kept(self):
        return list(tables.stream_pairs(self.folder / "out"))

    @property
    def quarantine(self):
        return tables.read_pairs(self.folder / "quarantine.parquet").to_pylist()

    @property
    def rejected(self):
        return {(row["id"], row["lang"]): row["reasons"] for row in self.quarantine}

    @property
    def summary(self):
        return files.read_json(self.folder / "summary.json")
