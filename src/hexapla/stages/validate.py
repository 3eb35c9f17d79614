"""Keep the rows that meet every expectation; put the others aside with their reasons."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from hexapla import benchmarks as suites
from hexapla import checks, cli, miracl, store, traits
from hexapla.params import Benchmark, Validate
from hexapla.records import Mistake, Pair

_log = logging.getLogger(__name__)


def validate(
    validate: Validate,
    benchmarks: tuple[Benchmark, ...],
    *,
    pairs: Path,
    data: Path,
    out: Path,
    quarantine: Path,
    summary: Path,
    docs: Path,
) -> None:
    """Write the kept rows to `out`, in their order, and the rejected ones to `quarantine`.

    Texts that may not be negatives are dropped from the kept rows. `data` holds the benchmarks as
    `collect` left them. When too few rows are kept, `out` is not written, but all else is, so that one
    can see why.
    """
    table = store.read_pairs(pairs)
    if not table.num_rows:
        raise Mistake(f"{pairs}: no rows; look at what `collect` and `translate` kept")
    # Every language of a benchmark, not only those that are judged: a model that saw one knows it.
    known = {entry.name: _texts(data / entry.name) for entry in benchmarks}
    settings = dataclasses.asdict(validate)
    min_kept = settings.pop("min_kept")
    checked = checks.check(table, origin=str(pairs), benchmarks=known, docs=docs, **settings)
    rows = list(store.iter_pairs(table))
    rejected = [(*row, "; ".join(checked.reasons[i])) for i, row in enumerate(rows) if i in checked.reasons]
    kept = [row for i, row in enumerate(rows) if i not in checked.reasons]
    kept, negatives = _sifted(kept, known.values(), validate)
    store.write_pairs(quarantine, rejected, extra=["reasons"])
    sizes = {name: {"texts": len(texts), "matches": checked.matches[name]} for name, texts in known.items()}
    card = _summary(rows, checked, min_kept) | {"benchmarks": sizes, "negatives": negatives}
    store.write_json(summary, card)
    if not kept or len(kept) / len(rows) < min_kept:
        out.unlink(missing_ok=True)  # an earlier run's, which no longer belongs to the reports beside it
        raise Mistake(_too_few(len(kept), len(rows), min_kept, checked, quarantine))
    store.write_pairs(out, kept)
    _log.info("kept %s of %s rows", f"{len(kept):,}", f"{len(rows):,}")


def _texts(folder: Path) -> frozenset[str]:
    """Questions and what answers them, normalised; of LAReQA's every sentence and paragraph."""
    if suites.detect(folder) == "lareqa":
        benchmark = suites.load(folder)
        texts = {question.text for question in benchmark.questions}
        for candidate in benchmark.candidates:
            texts |= {candidate.text, candidate.context}
    else:
        texts = set()
        for lang in miracl.languages(folder):
            judged = miracl.load(folder, lang)
            relevant = {passage for each in judged.relevant.values() for passage in each}
            texts |= {topic.text for topic in judged.topics}
            texts |= {passage.text for passage in miracl.passages(judged) if passage.id in relevant}
    return frozenset(traits.normalise(text) for text in texts) - {""}


def _sifted(
    rows: list[Pair], benchmarks: Collection[frozenset[str]], validate: Validate
) -> tuple[list[Pair], dict[str, Any]]:
    """The rows without what may not be a negative, and how many were kept and dropped, by reason."""
    fault = partial(
        traits.fault,
        benchmarks=benchmarks,
        chars=(validate.min_passage_chars, validate.max_passage_chars),
        answer_in_passage=validate.answer_in_passage,
    )
    sifted, dropped = [], Counter(dict.fromkeys(traits.FAULTS, 0))
    for row in rows:
        faults = [fault(text, row) for text in row.negatives]
        good = tuple(text for text, found in zip(row.negatives, faults, strict=True) if found is None)
        dropped.update(found for found in faults if found is not None)
        sifted.append(row._replace(negatives=good))
    return sifted, {"kept": sum(len(row.negatives) for row in sifted), "dropped": dict(dropped)}


def _summary(rows: list[Pair], checked: checks.Checked, min_kept: float) -> dict[str, Any]:
    langs = [row.lang or "" for row in rows]
    total = Counter(sorted(langs))
    lost = Counter(langs[i] for i in checked.reasons)
    kept = len(rows) - len(checked.reasons)
    expectations = []
    for rule, expectation, failed, _ in checked.verdicts:
        by_language = Counter(langs[i] for i in failed)
        expectations.append(
            {
                "name": rule.name,
                "expectation": expectation,
                "column": rule.column,
                "rejected": len(failed),
                "languages": {lang: by_language[lang] for lang in total},
            }
        )
    return {
        "rows": len(rows),
        "kept": kept,
        "rejected": len(checked.reasons),
        "kept_share": round(kept / len(rows), 4),
        "min_kept": min_kept,
        "languages": {
            lang: {"rows": total[lang], "kept": total[lang] - lost[lang]} for lang in sorted(total)
        },
        "identifier": checked.identifier,
        "not_checked": checked.not_checked,
        "expectations": expectations,
    }


def _too_few(kept: int, rows: int, min_kept: float, checked: checks.Checked, quarantine: Path) -> str:
    worst = sorted(checked.verdicts, key=lambda verdict: -len(verdict.rows))
    takes = ", ".join(f"{verdict.rule.name} {len(verdict.rows)}" for verdict in worst if verdict.rows)
    wanted = f"validate.min_kept is {min_kept}" if kept else "nothing is left to train on"
    return f"{quarantine}: kept {kept} of {rows} rows ({wanted}); mend what was rejected by: {takes}"


if __name__ == "__main__":
    cli.run(validate)
