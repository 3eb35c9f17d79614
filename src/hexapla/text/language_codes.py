"""Which language codes there are; the only code that knows `langcodes`.

A code that no standard has (`jp`, `cn`, `gr`) is a slip that would otherwise show, as a language without a
script and without a translation model, hours later.
"""

import functools
from collections.abc import Iterable

from hexapla.schema import UserError

_NO_LANGUAGE = frozenset({"und", "mul", "zxx", "mis"})
"""ISO 639-2's codes for undetermined, several, no and uncoded languages."""
_TAGALOG, _FILIPINO = "tl", "fil"


@functools.cache
def known_language(code: str) -> bool:
    """Whether `code` is a language of ISO 639, alone or as in BCP 47 (`zh-Hant`, `pt-BR`), in any case."""
    import langcodes

    return langcodes.tag_is_valid(code) and code.lower() not in _NO_LANGUAGE


def refuse_strangers(languages: Iterable[str], key: str) -> None:
    """UserError, under a key of `params.yaml`, unless all are known and in their plain form."""
    for lang in languages:
        if not known_language(lang):
            raise UserError(f"{key}: '{lang}' is no language of ISO 639")
        if (form := plain(lang)) != lang:
            raise UserError(f"{key}: write '{form}' for '{lang}', as the data does")


@functools.cache
def plain(code: str) -> str:
    """The one form of a code that is known: `DE`, `deu` and `ger` are `de`, `zh_hant_tw` is `zh-Hant-TW`."""
    import langcodes

    tag = langcodes.standardize_tag(code)
    base, *rest = tag.split("-")
    # CLDR, which the standard forms come from, has one code for both; models and other tables have two.
    if base == _FILIPINO and not code.lower().startswith(_FILIPINO):
        base = _TAGALOG
    return "-".join([base, *rest])
