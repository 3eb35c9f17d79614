"""Texts as sentences, in any language; the only code that knows `sentencex`.

It splits by rules and lists of abbreviations (Wikimedia's, for some 300 languages, with fallbacks to related
ones), so it needs no model, and the same text gives the same sentences everywhere.
"""

import re
from importlib.metadata import version

from hexapla.schema import SOURCE_LANGUAGE
from hexapla.text.languages import base_language

_RULES = 2
"""Of what is done here besides; another number says that other sentences may be found."""
_TRIPS = re.compile(r"[^\S\x00-\x7f](?=\.)")
"""Where sentencex 1.0 panics after a lone capital, as in "B\u00a0.": it takes white space for one byte."""


def identity() -> str:
    """What the splitting of a text depends on besides the text."""
    return f"sentencex {version('sentencex')}, rules {_RULES}"


def split(text: str, lang: str = SOURCE_LANGUAGE) -> list[str]:
    """The sentences of `text`, each with the white space after it: joined they are `text` again.

    White space before the first sentence belongs to it; a text of white space alone is one piece. A language
    that the splitter does not know is split like English.
    """
    import sentencex

    pieces: list[str] = []
    end = 0
    # As long as the text, which is cut by the lengths of what is found in it.
    for told in sentencex.segment(base_language(lang), _TRIPS.sub(" ", text)):
        found = text[end : end + len(told)]
        end += len(found)
        rest = found.lstrip()
        # White space alone, at the text's beginning, waits for the sentence that it stands before.
        if not pieces or (rest and not pieces[-1].isspace()):
            pieces.append("")
        if len(pieces) > 1 and not pieces[-1]:
            pieces[-2] += found[: len(found) - len(rest)]
            pieces[-1] = rest
        else:
            pieces[-1] += found
    return pieces
