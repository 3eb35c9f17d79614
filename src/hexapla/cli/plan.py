"""A dry run: what the settings need, from where, what is here already, and what it would cost."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from hexapla import tracking
from hexapla.cli import costs, enquiry, planning
from hexapla.cli.costs import TEXTS_PER_PAIR, Disk, Pairs, Training
from hexapla.cli.planning import Item
from hexapla.config import BaselineName, Benchmark, Replicas, SamplerName, Train
from hexapla.config_data import Collect, Translate
from hexapla.data.translate import engines
from hexapla.schema import UserError
from hexapla.text import languages

_COMMIT = re.compile("[0-9a-f]{40}")
_TITLES = {
    "Sources": ("source",),
    "Benchmarks": ("benchmark",),
    "Models": ("translation", "encoder", "cosine"),
}


def plan(
    collect: Collect,
    translate: Translate,
    encoder: str,
    sampler: SamplerName,
    baselines: tuple[BaselineName, ...],
    replicas: Replicas,
    train: Train,
    benchmarks: tuple[Benchmark, ...],
    *,
    online: bool = False,
    texts_per_second: float | None = None,
    pairs_per_second: float | None = None,
    sample: Path = Path("data/sample"),
) -> None:
    """Say what a run needs, from where, and what it would cost; fetch nothing. --params FILE plans another.

    Exit status 2 when something can't be had as it is written: a pin is missing, no such preset, file or
    mirror; all of it stands in a list at the end. No connection is opened but with --online, which asks the
    hub for sizes and commits. Hours come from the two rates, measured on the device that is meant, so with
    those of one GPU they are GPU hours. By default they are those of the latest run of the same model that
    MLflow on this machine knows (`texts_per_second`, `train/pairs_per_second`).
    """
    for flag, rate in (("--texts-per-second", texts_per_second), ("--pairs-per-second", pairs_per_second)):
        if rate is not None and not rate > 0:
            raise UserError(f"{flag}: must be above 0, got {rate:g}")
    items = planning.items(collect, benchmarks, translate, encoder, sample)
    items = enquiry.asked(items) if online else items
    for title, parts in _TITLES.items():
        _show(title, [item for item in items if item.part in parts])
    trained = costs.training(sampler, baselines, replicas, train)
    pairs = costs.pairs(items, translate.languages)
    items += _languages(translate, [lang for lang, count in pairs.lacking.items() if count], sample)
    print("\nWork")
    if texts_per_second is None:
        texts_per_second = tracking.measured("texts_per_second", f"tags.engine = '{_engine(translate)}'")
    if pairs_per_second is None:
        pairs_per_second = tracking.measured("train/pairs_per_second", f"params.encoder = '{encoder}'")
    _translation(pairs, translate.engine, texts_per_second)
    _training(trained, pairs_per_second)
    _disk(costs.disk(items, len(translate.languages), trained.models))
    if problems := [item for item in items if item.problem]:
        print("\nMissing")
        for item in problems:
            print(f"- {item.name}: {item.problem}")
        raise UserError(
            f"{len(problems)} of {len(items)} things can't be had as they are written; see the list"
        )
    print("\nNothing is missing.")


def _languages(translate: Translate, wanting: Sequence[str], sample: Path) -> list[Item]:
    """What is wrong with the languages: a code, or an engine without them; models are not looked into."""
    try:
        languages.check_languages(translate.languages, "translate.languages")
        if wanting and translate.engine in ("memory", "apertium"):
            engines.check(dataclasses.replace(translate, languages=tuple(wanting)), sample)
    except UserError as mistake:
        problem = str(mistake).removeprefix("translate.languages: ")
        return [Item("languages", "translate.languages", "", problem=problem)]
    return []


def _engine(translate: Translate) -> str:
    """How the names of its rows' engines begin."""
    model = Path(translate.model).name if Path(translate.model).is_dir() else translate.model
    return f"{translate.engine}:{model}" if model else translate.engine


def _show(title: str, items: Sequence[Item]) -> None:
    if not items:
        return
    pairs = any(item.pairs is not None for item in items)
    header = [title, "from", "revision", "licence", *(["pairs"] if pairs else []), "MB", "here"]
    rows = [
        [
            item.name,
            _COMMIT.sub(lambda commit: commit.group()[:10], item.origin),
            item.revision[:10] or ("missing" if item.host in ("dataset", "model") else "–"),
            item.licence or "–",
            *([_number(item.pairs)] if pairs else []),
            _number(item.megabytes),
            "yes" if item.here else "no",
        ]
        for item in items
    ]
    align = ["left"] * 4 + ["right"] * (len(header) - 5) + ["left"]
    widths = [None, 48, None, 30] + [None] * (len(header) - 4)
    print(f"\n{tabulate(rows, header, disable_numparse=True, colalign=align, maxcolwidths=widths)}")


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}" if value >= 1 or not value else "< 1"


def _translation(pairs: Pairs, engine: str, rate: float | None) -> None:
    lacking = sum(pairs.lacking.values())
    texts, shards = lacking * TEXTS_PER_PAIR, costs.shards()
    more = f"; more from {', '.join(pairs.unknown)}, of unknown size" if pairs.unknown else ""
    each = ", ".join(f"{lang} {count:,}" for lang, count in pairs.lacking.items())
    print(f"- English pairs, duplicates included: {pairs.english:,}{more}")
    print(f"- pairs to translate by {engine}: {lacking:,} ({each})")
    print(f"- texts: at most {texts:,}, {TEXTS_PER_PAIR} a pair and negatives beside; equal ones count once")
    print(f"- texts in the cache, whatever settings made them: {shards.texts:,} ({shards.megabytes:,.0f} MB)")
    print(f"- translation: {_hours(texts, rate, '--texts-per-second')}")


def _training(trained: Training, rate: float | None) -> None:
    hours = _hours(trained.pairs, rate, "--pairs-per-second")
    print(f"- training of {trained.models} models on {trained.pairs:,} pairs together: {hours}")


def _hours(work: int, rate: float | None, flag: str) -> str:
    if rate is None:
        return f"hours not known, as no rate was measured; {flag} takes one"
    return f"{work / rate / 3600:,.1f} hours at {rate:,g} a second"


def _disk(disk: Disk) -> None:
    unknown = f", without {', '.join(disk.unknown)}, of unknown size" if disk.unknown else ""
    print(f"\nDisk, estimated{unknown}")
    print(f"- to download: {disk.downloads / 1000:,.1f} GB")
    print(f"- tables, shards and their copies in DVC's cache: {disk.tables / 1000:,.1f} GB")
    print(f"- models and a checkpoint: {disk.models / 1000:,.1f} GB")
