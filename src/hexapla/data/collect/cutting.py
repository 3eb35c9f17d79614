"""Long passages, cut at the ends of sentences around the answer.

An encoder reads the first some hundred tokens of a passage and nothing after them: of a film's plot or a
newspaper's page, the part that answers the question is mostly beyond.
"""

from bisect import bisect_left, bisect_right

from hexapla.schema import SOURCE_LANGUAGE
from hexapla.text import sentences


def cut(passage: str, answer: str, longest: int, lang: str = SOURCE_LANGUAGE) -> str:
    """The part of `passage` to keep: one stretch of it, stripped, of at most `longest` characters.

    Whole sentences: those that the answer (where it stands first) reaches over, then, in turn, the next one
    after and before them, while they fit. Without an answer, or with one that is not in the passage, the
    passage's first sentences. Where even the sentences of the answer are too long, words around the answer;
    the answer itself is never cut, so an answer longer than `longest` is what remains.
    """
    if len(passage.strip()) <= longest:
        return passage.strip()
    at = max(0, passage.find(answer)) if answer else 0
    end = at + len(answer) if answer and passage.startswith(answer, at) else at + 1
    bounds = [0]
    for sentence in sentences.split(passage, lang):
        bounds.append(bounds[-1] + len(sentence))
    first, last = bisect_right(bounds, at) - 1, bisect_left(bounds, end) - 1
    if len(passage[bounds[first] : bounds[last + 1]].strip()) > longest:
        return _words(passage, at, end, longest)
    return _grown(passage, bounds, first, last, longest)


def _grown(passage: str, bounds: list[int], first: int, last: int, longest: int) -> str:
    """Sentences `first` to `last` and what fits around them; sentence i begins at bounds[i]."""
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


def _words(passage: str, at: int, end: int, longest: int) -> str:
    """A stretch around the characters `at` to `end`, from white space to white space where there is any."""
    spare = max(0, longest - (end - at)) // 2
    start = max(0, min(at - spare, len(passage) - longest))
    stop = max(end, min(len(passage), start + longest))
    start = min(at, start)
    if 0 < start < at and not passage[start - 1].isspace():
        start = next((i for i in range(start, at) if passage[i].isspace()), start)
    if end < stop < len(passage) and not passage[stop].isspace():
        stop = next((i for i in range(stop - 1, end - 1, -1) if passage[i].isspace()), stop)
    return passage[start:stop].strip()
