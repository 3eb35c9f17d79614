"""Texts of any length for engines that translate sentence by sentence, as they were trained to."""

import unicodedata
from collections.abc import Callable, Sequence

from hexapla.text import sentences

_CLOSED = ("zh", "ja")
"""Written without spaces, also between sentences: their full stops bring their own room."""

Piece = tuple[str, str, str]
"""White space, what is to be translated, white space."""


def rules() -> str:
    """Stands in the identity of engines that come through here; changes when translations would."""
    return f"sentences-1 {sentences.identity()}"


def by_sentence(
    texts: Sequence[str], lang: str, translate: Callable[[list[str]], Sequence[str | None]]
) -> list[tuple[str, ...]]:
    """For each English text its translation, put together from its sentences'; () where it has none.

    Each different sentence is translated once. One without letters, such as a number or a row of dashes,
    stays. White space between sentences stays too, line breaks above all, but for a space where the
    language would have none.

    Args:
        texts: of any length, and of any number of sentences.
        lang: the language to translate to.
        translate: gives for different sentences, each a line without white space around it, their
            translations, and None where there is none; then none of the texts that hold it have one.
            Nor has what is no text: with a NUL, or an unpaired surrogate.
    """
    cut = [_pieces(text) if _is_text(text) else [] for text in texts]
    cores = dict.fromkeys(core for pieces in cut for _, core, _ in pieces)
    wanted = [core for core in cores if any(map(str.isalpha, core))]
    known: dict[str, str | None] = {core: core for core in cores}
    known.update(zip(wanted, translate(wanted) if wanted else [], strict=True))
    return [_joined(pieces, known, lang) for pieces in cut]


def _is_text(text: str) -> bool:
    try:
        return "\0" not in text and bool(text.strip().encode())
    except UnicodeEncodeError:
        return False


def _pieces(text: str) -> list[Piece]:
    made: list[Piece] = []
    for sentence in sentences.split(text):
        # Where a sentence goes over the end of a line, the line counts: it may be a title or a verse.
        for line in sentence.splitlines(keepends=True):
            core = line.strip()
            before, _, after = line.partition(core) if core else (line, "", "")
            if not core and made:
                made[-1] = (*made[-1][:2], made[-1][2] + line)
            else:
                made.append((before, core, after))
    return made


def _joined(pieces: Sequence[Piece], known: dict[str, str | None], lang: str) -> tuple[str, ...]:
    text = ""
    for number, (before, core, after) in enumerate(pieces):
        new = known[core]
        if new is None:
            return ()
        last = number == len(pieces) - 1
        text += before + new + ("" if lang in _CLOSED and not last and _no_space(new, after) else after)
    return (text,) if text.strip() else ()


def _no_space(text: str, after: str) -> bool:
    return not after.strip(" ") and unicodedata.east_asian_width(text[-1:] or " ") in "WF"
