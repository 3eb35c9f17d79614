"""The English pairs and their translations, as far as the engine has them, in one table."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hexapla import cli, machine, store, translation
from hexapla.params import Translate
from hexapla.records import Mistake, Pair
from hexapla.translation import Tally

_log = logging.getLogger(__name__)

ENGINES: dict[str, Callable[..., translation.Engine]] = {
    "memory": translation.memory,
    "transformers": machine.machine,
}


def translate(translate: Translate, *, pairs: Path, sample: Path, out: Path, summary: Path) -> None:
    """Write the pairs in English and every configured language to `out`, and counts to `summary`."""
    table = store.read_pairs(pairs)
    engine = ENGINES[translate.engine](
        sample=sample,
        memories=translate.memories,
        model=translate.model,
        batch_size=translate.batch_size,
        beams=translate.beams,
    )
    engine.check(translate.languages)
    tallies = {lang: Tally() for lang in translate.languages}
    rows = store.write_pairs(out, _all(table, engine, tallies))
    card = {
        "engine": engine.name,
        "pairs": table.num_rows,
        "rows": rows,
        "languages": {lang: dataclasses.asdict(tally) for lang, tally in tallies.items()},
    }
    store.write_json(summary, card)
    missing = sum(tally.missing for tally in tallies.values())
    _log.info(
        "%s rows in %d languages; %s that %s could not translate were left out",
        f"{rows:,}", 1 + len(tallies), f"{missing:,}", engine.name,
    )  # fmt: skip


def _all(table: Any, engine: translation.Engine, tallies: dict[str, Tally]) -> Iterator[Pair]:
    yield from store.iter_pairs(table)
    for lang, tally in tallies.items():
        english = tqdm(store.iter_pairs(table), lang, total=table.num_rows, unit=" pairs", disable=None)
        yield from translation.translate_pairs(english, lang, engine, tally)
        if not tally.translated:
            raise Mistake(
                f"translate.languages: no row in '{lang}': {engine.name} has question and passage of none of "
                f"the {table.num_rows} pairs; take another engine or memory, or '{lang}' off the list"
            )


if __name__ == "__main__":
    cli.run(translate)
