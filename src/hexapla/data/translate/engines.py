"""The engine that `params.yaml` asks for."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hexapla.config_data import Translate
from hexapla.data.translate.apertium import Apertium
from hexapla.data.translate.compiled import Compiled
from hexapla.data.translate.machine import Machine
from hexapla.data.translate.memory import Engine, memory


class _Wanted(NamedTuple):
    """All that an engine is made of; of a language's own model, that one."""

    engine: str
    model: str
    compute: str
    batch_tokens: int
    beams: int
    memories: tuple[str, ...]
    sample: Path


ENGINES: dict[str, Callable[[_Wanted], Engine]] = {
    "memory": lambda it: memory(sample=it.sample, memories=it.memories),
    "apertium": lambda _: Apertium(),
    "transformers": lambda it: Machine(it.model, batch_tokens=it.batch_tokens, beams=it.beams),
    "ctranslate2": lambda it: Compiled(
        it.model, compute=it.compute, batch_tokens=it.batch_tokens, beams=it.beams
    ),
}


def engine(settings: Translate, sample: Path, lang: str) -> Engine:
    """The engine for a language, the same object whenever a process asks for the same.

    Raises:
        UserError: what it needs is not there: a package, a program, a model, a file.
    """
    model = settings.models.get(lang, settings.model)
    if settings.engine in ("memory", "apertium"):
        model = ""
    return _built(
        _Wanted(
            settings.engine, model, settings.compute, settings.batch_tokens, settings.beams,
            tuple(settings.memories), sample,
        )
    )  # fmt: skip


def check(settings: Translate, sample: Path) -> None:
    """Raise UserError unless there is an engine for each language; before any work."""
    wanted: dict[str, list[str]] = {}
    for lang in settings.languages:
        wanted.setdefault(settings.models.get(lang, settings.model), []).append(lang)
    for languages in wanted.values():
        engine(settings, sample, languages[0]).check(languages)


@functools.cache
def _built(wanted: _Wanted) -> Engine:
    return ENGINES[wanted.engine](wanted)
