"""What a translation engine is, and the one that the settings ask for.

A new engine is one class with the four members of `Engine`, one entry in `ENGINES`, and one section in
`hexapla.config`.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from hexapla.config import Translate, TranslateFromMemory, TranslateWithCTranslate2, TranslateWithModel


class Engine(Protocol):
    """Something that translates English texts; `name` goes into the rows that it made."""

    @property
    def name(self) -> str: ...

    def identity(self, lang: str) -> str:
        """Describe all that translations to `lang` depend on; the description names what is kept of them."""

    def check(self, languages: Sequence[str]) -> None:
        """Raise UserError, with what is supported, unless all `languages` are; called before any work."""

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        """Give the translations of each English text, of any length, best first; () where there are none."""


# --- the registry ------------------------------------------------------------------------------


class EngineSettings(NamedTuple):
    """All that an engine is made of; where each language has a model of its own, that one."""

    engine: str
    model: str
    compute: str
    batch_tokens: int
    beams: int
    memories: tuple[str, ...]
    sample: Path


# Each engine is imported when it is asked for: three of the four need packages that are slow to import.


def _build_memory(settings: EngineSettings) -> Engine:
    from hexapla.data.translate import memory

    return memory.read_memory(sample=settings.sample, memories=settings.memories)


def _build_apertium(_: EngineSettings) -> Engine:
    from hexapla.data.translate.apertium import Apertium

    return Apertium()


def _build_transformers(settings: EngineSettings) -> Engine:
    from hexapla.data.translate.nmt import TransformersEngine

    return TransformersEngine(settings.model, batch_tokens=settings.batch_tokens, beams=settings.beams)


def _build_ctranslate2(settings: EngineSettings) -> Engine:
    from hexapla.data.translate.ctranslate2_engine import CTranslate2Engine

    return CTranslate2Engine(
        settings.model,
        compute=settings.compute,
        batch_tokens=settings.batch_tokens,
        beams=settings.beams,
    )


ENGINES: dict[str, Callable[[EngineSettings], Engine]] = {
    "memory": _build_memory,
    "apertium": _build_apertium,
    "transformers": _build_transformers,
    "ctranslate2": _build_ctranslate2,
}
ON_GPU = ("transformers", "ctranslate2")
"""Engines that use a GPU where there is one."""


def build_engine(settings: Translate, sample: Path, lang: str) -> Engine:
    """Build the engine for a language; a process that asks for the same engine again gets the same object.

    Args:
        settings: the section `translate`.
        sample: the folder of the shipped translations.
        lang: the language to translate to.

    Raises:
        UserError: what the engine needs is missing: a package, a program, a model, a file.
    """
    memories: tuple[str, ...] = ()
    compute, batch_tokens, beams = "", 0, 0
    if isinstance(settings, TranslateFromMemory):
        memories = settings.memories
    if isinstance(settings, TranslateWithModel):
        batch_tokens, beams = settings.batch_tokens, settings.beams
    if isinstance(settings, TranslateWithCTranslate2):
        compute = settings.compute
    model = _find_model(settings, lang)
    return _build(EngineSettings(settings.engine, model, compute, batch_tokens, beams, memories, sample))


@functools.cache
def _build(settings: EngineSettings) -> Engine:
    return ENGINES[settings.engine](settings)


def _find_model(settings: Translate, lang: str) -> str:
    return settings.model_for(lang) if isinstance(settings, TranslateWithModel) else ""


def check_engines(settings: Translate, sample: Path) -> None:
    """Raise UserError unless there is an engine for each language; called before any work."""
    by_model: dict[str, list[str]] = {}
    for lang in settings.languages:
        by_model.setdefault(_find_model(settings, lang), []).append(lang)
    for languages in by_model.values():
        build_engine(settings, sample, languages[0]).check(languages)
