"""What a run would cost: texts to translate, hours, disk. Only a rate that was measured becomes hours."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hexapla.cli.planning import Item
from hexapla.config import Replicas, Train
from hexapla.io import cache
from hexapla.io import tables as parquet
from hexapla.schema import UserError

_log = logging.getLogger(__name__)

TEXTS_PER_PAIR = 3
"""Question, passage and answer; equal texts are translated once, so this is the most, negatives apart."""


class Pairs(NamedTuple):
    """Of the sources whose size is known, before duplicates are left out."""

    english: int
    lacking: Mapping[str, int]
    """By language: those of sources that do not bring it themselves."""
    unknown: tuple[str, ...]
    """Sources whose size is not known before they are read."""


def pairs(items: Sequence[Item], languages: Sequence[str]) -> Pairs:
    """How many there are, and how many each of the languages lacks."""
    sources = [item for item in items if item.part == "source"]
    lacking = {
        lang: sum(item.pairs or 0 for item in sources if lang not in item.languages) for lang in languages
    }
    unknown = tuple(item.name for item in sources if item.pairs is None)
    return Pairs(sum(item.pairs or 0 for item in sources), lacking, unknown)


class Shards(NamedTuple):
    """What the cache keeps of earlier translations, whatever settings made them."""

    texts: int
    megabytes: float


def shards() -> Shards:
    """Read from the files' ends alone; a file that can't be read is passed over."""
    texts = size = 0
    for file in sorted((cache.cache_root() / "translate").rglob("*.parquet")):
        try:
            texts += parquet.count_rows(file)
            size += file.stat().st_size
        except (UserError, OSError):  # another run may be clearing it away
            _log.debug("%s: passed over", file)
    return Shards(texts, size / 1e6)


class Training(NamedTuple):
    """How many models are trained, and on how many pairs all of them together."""

    models: int
    pairs: int


def training(sampler: str, baselines: Sequence[str], replicas: Replicas, train: Train) -> Training:
    """The candidate, the baselines and the replicas, without the encoder as it came."""
    models = sum(name != "untuned" for name in (sampler, *baselines)) + len(replicas.names())
    return Training(models, models * train.steps * train.batch_size)


class Disk(NamedTuple):
    """Megabytes, of what has a known size."""

    downloads: float
    """Of what is not here yet."""
    tables: float
    models: float
    unknown: tuple[str, ...]
    """What has no known size, and is in none of these."""


def disk(items: Sequence[Item], languages: int, models: int) -> Disk:
    """An estimate, from the sizes that sources and encoder have where they come from.

    A translated text takes about the bytes of the English one. Each language stands in the shards, in the
    parallel and in the validated table, English in the raw one too; DVC's cache keeps the three tables once
    more, unless it may link. A model is kept twice as well, and a checkpoint holds the weights and two
    moments of each.
    """
    english = sum(
        (item.megabytes or 0) * item.share / max(1, len(item.languages))
        for item in items
        if item.part == "source"
    )
    weights = sum(item.megabytes or 0 for item in items if item.part == "encoder")
    return Disk(
        downloads=sum(item.megabytes or 0 for item in items if item.host and not item.here),
        tables=english * (2 * 3 + languages * (2 * 2 + 1)),
        models=weights * (2 * models + 3),
        unknown=tuple(item.name for item in items if item.megabytes is None),
    )
