"""The engine that `params.yaml` asks for."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hexapla.config import Translate, TranslateFromMemory, TranslateWithCTranslate2, TranslateWithModel
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
    memories: tuple[str, ...] = ()
    compute, batch_tokens, beams = "", 0, 0
    if isinstance(settings, TranslateFromMemory):
        memories = settings.memories
    if isinstance(settings, TranslateWithModel):
        batch_tokens, beams = settings.batch_tokens, settings.beams
    if isinstance(settings, TranslateWithCTranslate2):
        compute = settings.compute
    model = _model(settings, lang)
    return _built(_Wanted(settings.engine, model, compute, batch_tokens, beams, memories, sample))


def _model(settings: Translate, lang: str) -> str:
    return settings.model_for(lang) if isinstance(settings, TranslateWithModel) else ""


def check(settings: Translate, sample: Path) -> None:
    """Raise UserError unless there is an engine for each language; before any work."""
    wanted: dict[str, list[str]] = {}
    for lang in settings.languages:
        wanted.setdefault(_model(settings, lang), []).append(lang)
    for languages in wanted.values():
        engine(settings, sample, languages[0]).check(languages)


@functools.cache
def _built(wanted: _Wanted) -> Engine:
    return ENGINES[wanted.engine](wanted)
