"""What all translation engines share: texts are cut into sentences, and translations are put together again.

Engines translate sentence by sentence, as they were trained to. An engine that has no translation of a text says
so: nothing goes on in English under the name of another language.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence

from hexapla.schema import SOURCE_LANGUAGE, UserError
from hexapla.text import sentences

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


# --- languages ---------------------------------------------------------------------------------


def refuse_unsupported(languages: Sequence[str], known: Iterable[str], holder: str, cure: str) -> None:
    """Raise UserError unless the `holder` knows all `languages`; the message ends with the `cure`."""
    names = sorted(set(known) - {SOURCE_LANGUAGE})
    if unknown := [lang for lang in languages if lang not in names]:
        raise UserError(
            f"translate.languages: {holder} has no {', '.join(repr(lang) for lang in unknown)} "
            f"(it has {', '.join(names) or 'none'}); {cure}"
        )
