"""What a translation engine is, and the one that the settings ask for.

Engines translate sentence by sentence, as they were trained to; `translate_by_sentence` cuts texts for them and
puts translations together. An engine that has no translation of a text says so: nothing goes on in English
under the name of another language.

A new engine is one class with the four members of `Engine`, one entry in `ENGINES`, and one section in
`hexapla.config`.
"""

import functools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from hexapla.config import Translate, TranslateFromMemory, TranslateWithCTranslate2, TranslateWithModel
from hexapla.schema import SOURCE_LANGUAGE, UserError
from hexapla.text import sentences


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


# Each engine is imported when it is asked for: three of the four need packages that are slow to import, and all
# of them import this module.


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


def refuse_unsupported(languages: Sequence[str], known: Iterable[str], holder: str, cure: str) -> None:
    """Raise UserError unless the `holder` knows all `languages`; the message ends with the `cure`."""
    names = sorted(set(known) - {SOURCE_LANGUAGE})
    if unknown := [lang for lang in languages if lang not in names]:
        raise UserError(
            f"translate.languages: {holder} has no {', '.join(repr(lang) for lang in unknown)} "
            f"(it has {', '.join(names) or 'none'}); {cure}"
        )


# --- texts as sentences ------------------------------------------------------------------------

FORMAT = "sentences-1"
"""Part of the identity of all engines: another one whenever equal sentences would make other texts."""

_WITHOUT_SPACES = ("zh", "ja")
"""Languages without spaces between sentences too: their full stops are as wide as a letter and a space."""

_Line = tuple[str, str, str]
"""White space, what is to be translated, white space."""


def sentence_identity() -> str:
    """Return what the handling of sentences depends on, for the identities of engines."""
    return f"{FORMAT} {sentences.identity()}"


def translate_by_sentence(
    texts: Sequence[str], lang: str, translate: Callable[[list[str]], Sequence[str | None]]
) -> list[tuple[str, ...]]:
    """Give each English text's translation, made of those of its sentences; () where there is none.

    Each different sentence is translated once. One without letters, such as a number or a row of dashes,
    stays as it is. White space between sentences stays too, line breaks above all, but for a space where the
    language would have none.

    Args:
        texts: of any length, and of any number of sentences.
        lang: the language to translate to.
        translate: gives for different sentences, each a line without white space around it, their
            translations, and None where there is none; a text that has such a sentence has no translation.
            Nor has a text with a NUL or an unpaired surrogate.
    """
    cut = [_cut_lines(text) if _is_text(text) else [] for text in texts]
    cores = dict.fromkeys(core for lines in cut for _, core, _ in lines)
    asked = [core for core in cores if any(map(str.isalpha, core))]
    known: dict[str, str | None] = {core: core for core in cores}
    known.update(zip(asked, translate(asked) if asked else [], strict=True))
    return [_join(lines, known, lang) for lines in cut]


def _is_text(text: str) -> bool:
    try:
        return "\0" not in text and bool(text.strip().encode())
    except UnicodeEncodeError:
        return False


def _cut_lines(text: str) -> list[_Line]:
    lines: list[_Line] = []
    for sentence in sentences.split(text):
        # Where a sentence goes over the end of a line, the line counts: it may be a title or a verse.
        for line in sentence.splitlines(keepends=True):
            core = line.strip()
            before, _, after = line.partition(core) if core else (line, "", "")
            if not core and lines:
                lines[-1] = (*lines[-1][:2], lines[-1][2] + line)
            else:
                lines.append((before, core, after))
    return lines


def _join(lines: Sequence[_Line], known: dict[str, str | None], lang: str) -> tuple[str, ...]:
    text = ""
    for number, (before, core, after) in enumerate(lines):
        new = known[core]
        if new is None:
            return ()
        last = number == len(lines) - 1
        drop = lang in _WITHOUT_SPACES and not last and _needs_no_space(new, after)
        text += before + new + ("" if drop else after)
    return (text,) if text.strip() else ()


def _needs_no_space(text: str, after: str) -> bool:
    return not after.strip(" ") and unicodedata.east_asian_width(text[-1:] or " ") in "WF"
