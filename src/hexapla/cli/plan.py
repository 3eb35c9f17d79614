"""What a run needs, from where, what is here already, and what it would cost, without running it.

Only a rate that was measured becomes hours.
"""

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from hexapla import tracking
from hexapla.cli import requirements
from hexapla.cli.requirements import Item
from hexapla.config import Config, Translate, TranslateWithModel
from hexapla.data.translate import engines
from hexapla.io import cache, tables
from hexapla.reporting import terminal
from hexapla.schema import UserError
from hexapla.text import languages

TEXTS_PER_PAIR = 3
"""Question, passage and answer; this is the most without negatives, since equal texts are translated once."""

_log = logging.getLogger(__name__)
_COMMIT = re.compile("[0-9a-f]{40}")
_TITLES = {
    "Sources": ("source",),
    "Benchmarks": ("benchmark",),
    "Models": ("translation", "encoder", "cosine"),
}


# --- costs -----------------------------------------------------------------------------------


class PairCount(NamedTuple):
    """English pairs of the sources whose size is known, before duplicates are left out."""

    english: int
    lacking: Mapping[str, int]
    """How many pairs each language lacks: those of sources that do not bring it themselves."""
    unknown: tuple[str, ...]
    """Sources whose size is not known before they are read."""


def count_pairs(items: Sequence[Item], languages: Sequence[str]) -> PairCount:
    """Count the English pairs, and those that each of the languages lacks."""
    sources = [item for item in items if item.part == "source"]
    lacking = {
        lang: sum(item.pairs or 0 for item in sources if lang not in item.languages) for lang in languages
    }
    unknown = tuple(item.name for item in sources if item.pairs is None)
    return PairCount(sum(item.pairs or 0 for item in sources), lacking, unknown)


class ShardCount(NamedTuple):
    """Earlier translations in the cache, whatever settings made them."""

    texts: int
    megabytes: float


def count_shards() -> ShardCount:
    """Count the texts by reading the files' ends alone; a file that can't be read is skipped."""
    texts = size = 0
    for file in sorted((cache.cache_root() / "translate").rglob("*.parquet")):
        try:
            texts += tables.count_rows(file)
            size += file.stat().st_size
        except (UserError, OSError):  # another run may be clearing it away
            _log.debug("%s: passed over", file)
    return ShardCount(texts, size / 1e6)


class TrainingWork(NamedTuple):
    """How many models are trained, and on how many pairs in total."""

    models: int
    pairs: int


def count_training(settings: Config) -> TrainingWork:
    """Count the candidate and the trained models of the comparison, but not untuned encoders."""
    comparison = settings.comparison
    models = [
        settings.compared_model(encoder, recipe, seed)
        for encoder in comparison.encoders
        for recipe in comparison.recipes
        for seed in comparison.seeds
    ]
    if settings.sampler != "untuned":
        models.append(settings.candidate())
    return TrainingWork(len(models), sum(model.train.steps * model.train.batch_size for model in models))


class DiskSpace(NamedTuple):
    """Megabytes of what has a known size."""

    downloads: float
    """What is not here yet."""
    tables: float
    models: float
    unknown: tuple[str, ...]
    """Items of unknown size, which are in none of these figures."""


def estimate_disk(items: Sequence[Item], languages: int, models: int) -> DiskSpace:
    """Estimate the space from the sizes that sources and encoder have where they come from.

    A translated text takes about the bytes of the English one. Each language is in the shards, in the
    parallel and in the validated table, English in the raw one too; DVC's cache keeps the three tables once
    more, unless it may link. A model is kept twice as well, and a checkpoint holds the weights and two
    moments of each.
    """
    english = sum(
        (item.megabytes or 0) * item.share / max(1, len(item.languages))
        for item in items
        if item.part == "source"
    )
    encoders = [item.megabytes or 0 for item in items if item.part == "encoder"]
    weights = sum(encoders) / max(1, len(encoders))
    return DiskSpace(
        downloads=sum(item.megabytes or 0 for item in items if item.host and not item.here),
        tables=english * (2 * 3 + languages * (2 * 2 + 1)),
        models=weights * (2 * models + 3),
        unknown=tuple(item.name for item in items if item.megabytes is None),
    )


# --- the command ----------------------------------------------------------------------------------


def plan(
    settings: Config,
    *,
    online: Annotated[bool, typer.Option("--online", help="Ask the hub for sizes and commits.")] = False,
    texts_per_second: Annotated[
        float | None, typer.Option(help="Rate of translation on the device that is meant.")
    ] = None,
    pairs_per_second: Annotated[
        float | None, typer.Option(help="Rate of training on the device that is meant.")
    ] = None,
    sample: Annotated[Path, typer.Option(help="The folder with the shipped data.")] = Path("data/sample"),
) -> None:
    """Say what a run needs, from where, and what it would cost; fetch nothing.

    The exit status is 2 if something is not available as it is written: a missing pin, an unknown preset, a
    missing file or mirror. A list at the end names all of it. Only `--online` opens connections.

    Hours come from the two rates, so those of one GPU give GPU hours. By default they are those of the latest
    run of the same model in MLflow on this machine (`texts_per_second`, `train/pairs_per_second`).
    """
    for flag, rate in (("--texts-per-second", texts_per_second), ("--pairs-per-second", pairs_per_second)):
        if rate is not None and not rate > 0:
            raise UserError(f"{flag}: must be above 0, got {rate:g}")
    translate = settings.translate
    encoder = settings.candidate().encoder
    compared = (settings.encoders[name].model for name in settings.comparison.encoders)
    encoders = [*dict.fromkeys([encoder, *compared])]
    items = requirements.list_items(settings.collect, settings.benchmarks, translate, encoders, sample)
    items = requirements.ask_hub(items) if online else items
    for title, parts in _TITLES.items():
        _print_items(title, [item for item in items if item.part in parts])
    trained = count_training(settings)
    pairs = count_pairs(items, translate.languages)
    items += _check_languages(translate, [lang for lang, count in pairs.lacking.items() if count], sample)
    print("\nWork")
    if texts_per_second is None:
        texts_per_second = tracking.measured("texts_per_second", f"tags.engine = '{_name_engine(translate)}'")
    if pairs_per_second is None:
        pairs_per_second = tracking.measured("train/pairs_per_second", f"params.encoder = '{encoder}'")
    _print_translation(pairs, translate.engine, texts_per_second)
    _print_training(trained, pairs_per_second)
    _print_disk(estimate_disk(items, len(translate.languages), trained.models))
    if problems := [item for item in items if item.problem]:
        print("\nMissing")
        for item in problems:
            print(f"- {item.name}: {item.problem}")
        raise UserError(
            f"{len(problems)} of {len(items)} things can't be had as they are written; see the list"
        )
    print("\nNothing is missing.")


def _check_languages(translate: Translate, wanting: Sequence[str], sample: Path) -> list[Item]:
    """List what is wrong with the languages: a code, or an engine that lacks them; models are not checked."""
    try:
        languages.check_languages(translate.languages, "translate.languages")
        if wanting and translate.engine in ("memory", "apertium"):
            engines.check_engines(dataclasses.replace(translate, languages=tuple(wanting)), sample)
    except UserError as mistake:
        problem = str(mistake).removeprefix("translate.languages: ")
        return [Item("languages", "translate.languages", "", problem=problem)]
    return []


def _name_engine(translate: Translate) -> str:
    """How the names of its rows' engines begin."""
    if not isinstance(translate, TranslateWithModel):
        return translate.engine
    model = Path(translate.model).name if Path(translate.model).is_dir() else translate.model
    return f"{translate.engine}:{model}" if model else translate.engine


def _print_items(title: str, items: Sequence[Item]) -> None:
    if not items:
        return
    pairs = any(item.pairs is not None for item in items)
    header = [title, "from", "revision", "license", *(["pairs"] if pairs else []), "MB", "here"]
    rows = [
        [
            item.name,
            _COMMIT.sub(lambda commit: commit.group()[:10], item.origin),
            item.revision[:10] or ("missing" if item.host in ("dataset", "model") else "–"),
            item.license or "–",
            *([_format_number(item.pairs)] if pairs else []),
            _format_number(item.megabytes),
            "yes" if item.here else "no",
        ]
        for item in items
    ]
    print()
    align = "llll" + "r" * (len(header) - 5) + "l"
    terminal.print_table(header, rows, align, [None, 48, None, 30] + [None] * (len(header) - 4))


def _format_number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}" if value >= 1 or not value else "< 1"


def _print_translation(pairs: PairCount, engine: str, rate: float | None) -> None:
    lacking = sum(pairs.lacking.values())
    texts, shards = lacking * TEXTS_PER_PAIR, count_shards()
    more = f"; more from {', '.join(pairs.unknown)}, of unknown size" if pairs.unknown else ""
    each = ", ".join(f"{lang} {count:,}" for lang, count in pairs.lacking.items())
    print(f"- English pairs, duplicates included: {pairs.english:,}{more}")
    print(f"- pairs to translate by {engine}: {lacking:,} ({each})")
    print(
        f"- texts: at most {texts:,}, {TEXTS_PER_PAIR} a pair, negatives not counted; equal ones count once"
    )
    print(f"- texts in the cache, whatever settings made them: {shards.texts:,} ({shards.megabytes:,.0f} MB)")
    print(f"- translation: {_format_hours(texts, rate, '--texts-per-second')}")


def _print_training(trained: TrainingWork, rate: float | None) -> None:
    hours = _format_hours(trained.pairs, rate, "--pairs-per-second")
    print(f"- training of {trained.models} models on {trained.pairs:,} pairs together: {hours}")


def _format_hours(work: int, rate: float | None, flag: str) -> str:
    if rate is None:
        return f"hours not known, as no rate was measured; {flag} takes one"
    return f"{work / rate / 3600:,.1f} hours at {rate:,g} a second"


def _print_disk(disk: DiskSpace) -> None:
    unknown = f", without {', '.join(disk.unknown)}, of unknown size" if disk.unknown else ""
    print(f"\nDisk, estimated{unknown}")
    print(f"- to download: {disk.downloads / 1000:,.1f} GB")
    print(f"- tables, shards and their copies in DVC's cache: {disk.tables / 1000:,.1f} GB")
    print(f"- models and a checkpoint: {disk.models / 1000:,.1f} GB")
