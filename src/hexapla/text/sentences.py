"""Split texts into sentences, in any language, and cut long passages at their ends; the only code that knows
`sentencex`.

It splits by rules and lists of abbreviations (Wikimedia's, for some 300 languages, with fallbacks to related
ones), so it needs no model, and the same text gives the same sentences everywhere.
"""

import re
from bisect import bisect_left, bisect_right
from importlib.metadata import version

from hexapla.schema import SOURCE_LANGUAGE
from hexapla.text.languages import base_language
from hexapla.text.normalize import find_answer

_RULES = 2
"""The version of this module's own rules: raise it when other sentences may be found."""
_PANICS = re.compile(r"[^\S\x00-\x7f](?=\.)")
"""White space at which sentencex 1.0 panics after a lone capital, as in "B\u00a0.": it takes it for one byte."""


def identity() -> str:
    """Return what the splitting of a text depends on besides the text, for keys of caches."""
    return f"sentencex {version('sentencex')}, rules {_RULES}"


def split(text: str, lang: str = SOURCE_LANGUAGE) -> list[str]:
    """Return the sentences of `text`, each with the white space after it: joined they are `text` again.

    White space before the first sentence belongs to it; a text of white space alone is one piece. A language
    that the splitter does not know is split like English.
    """
    import sentencex

    pieces: list[str] = []
    end = 0
    # The replacement keeps the length, so that lengths of sentences are places in the original text.
    for sentence in sentencex.segment(base_language(lang), _PANICS.sub(" ", text)):
        piece = text[end : end + len(sentence)]
        end += len(piece)
        rest = piece.lstrip()
        # White space alone, at the text's beginning, waits for the sentence that follows it.
        if not pieces or (rest and not pieces[-1].isspace()):
            pieces.append("")
        if len(pieces) > 1 and not pieces[-1]:
            pieces[-2] += piece[: len(piece) - len(rest)]
            pieces[-1] = rest
        else:
            pieces[-1] += piece
    return pieces


# --- long passages -------------------------------------------------------------------------------


def truncate(passage: str, answer: str, longest: int, lang: str = SOURCE_LANGUAGE) -> str:
    """Return one stretch of `passage` around the answer, stripped, of at most `longest` characters.

    An encoder reads the first few hundred tokens of a passage and nothing after them; of a film's plot or a
    newspaper's page, the part that answers the question mostly comes later.

    The stretch consists of whole sentences: those that the answer (at its first place) spans, then, in turn, the
    next one after and before them, while they fit. Without an answer, or with one that is not in the passage, it
    is the passage's first sentences. Where even the sentences of the answer are too long, it is words around the
    answer; the answer itself is never cut, so an answer longer than `longest` is what remains.
    """
    if len(passage.strip()) <= longest:
        return passage.strip()
    at, end = find_answer(passage, answer, lang) or (0, 1)
    bounds = [0]
    for sentence in split(passage, lang):
        bounds.append(bounds[-1] + len(sentence))
    first, last = bisect_right(bounds, at) - 1, bisect_left(bounds, end) - 1
    if len(passage[bounds[first] : bounds[last + 1]].strip()) > longest:
        return _take_words(passage, at, end, longest)
    return _add_sentences(passage, bounds, first, last, longest)


def _add_sentences(passage: str, bounds: list[int], first: int, last: int, longest: int) -> str:
    """Return sentences `first` to `last` and what fits around them; sentence i begins at bounds[i]."""
    after, room = True, {True, False}
    while room:
        if after not in room:
            after = not after
        low, high = (first, last + 1) if after else (first - 1, last)
        fits = low >= 0 and high < len(bounds) - 1
        if fits and len(passage[bounds[low] : bounds[high + 1]].strip()) <= longest:
            first, last = low, high
        else:
            room.discard(after)
        after = not after
    return passage[bounds[first] : bounds[last + 1]].strip()


def _take_words(passage: str, at: int, end: int, longest: int) -> str:
    """Return a stretch around characters `at` to `end`, from white space to white space where there is any."""
    spare = max(0, longest - (end - at)) // 2
    start = max(0, min(at - spare, len(passage) - longest))
    stop = max(end, min(len(passage), start + longest))
    start = min(at, start)
    if 0 < start < at and not passage[start - 1].isspace():
        start = next((i for i in range(start, at) if passage[i].isspace()), start)
    if end < stop < len(passage) and not passage[stop].isspace():
        stop = next((i for i in range(stop - 1, end - 1, -1) if passage[i].isspace()), stop)
    return passage[start:stop].strip()
