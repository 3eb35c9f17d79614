"""The four families of translation models: their codes for languages, and their tokenizers.

OPUS-MT, M2M-100, NLLB-200 and MADLAD-400 differ in how they are told the target language: by a mark
before the text, or by the first token that they must write.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.schema import SOURCE_LANGUAGE, UserError

# NLLB-200's codes (Costa-jussà et al. 2022, arXiv 2207.04672, table 1): ISO 639-3 and script.
# fmt: off
NLLB_CODES = {
    "ar": "arb_Arab", "bg": "bul_Cyrl", "bn": "ben_Beng", "cs": "ces_Latn", "da": "dan_Latn",
    "de": "deu_Latn", "el": "ell_Grek", "en": "eng_Latn", "es": "spa_Latn", "et": "est_Latn",
    "fa": "pes_Arab", "fi": "fin_Latn", "fr": "fra_Latn", "he": "heb_Hebr", "hi": "hin_Deva",
    "hr": "hrv_Latn", "hu": "hun_Latn", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan",
    "ko": "kor_Hang", "lt": "lit_Latn", "lv": "lvs_Latn", "ms": "zsm_Latn", "nl": "nld_Latn",
    "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn", "ru": "rus_Cyrl", "sk": "slk_Latn",
    "sl": "slv_Latn", "sv": "swe_Latn", "sw": "swh_Latn", "ta": "tam_Taml", "te": "tel_Telu",
    "th": "tha_Thai", "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "vi": "vie_Latn",
    "yo": "yor_Latn", "zh": "zho_Hans",
}
# fmt: on
# OPUS-MT's names for a language, best first, where they are not the two letters or NLLB's three.
_OPUS: dict[str, tuple[str, ...]] = {
    "ar": ("ara",),
    "fa": ("fas",),
    "lv": ("lav",),
    "ms": ("msa",),
    "sw": ("swa",),
    "zh": ("cmn_Hans", "cmn"),
}
# MADLAD-400 keeps codes that ISO 639 has replaced.
_MADLAD = {"he": "iw", "id": "in", "yi": "ji"}


class Target(NamedTuple):
    """How a model is told the language: a mark before the English text, or the first token to write."""

    mark: str = ""
    token: int | None = None
    apart: str = ""
    """What marks begin with; where a text has it, a space is put behind it."""


def marked(text: str, target: Target) -> str:
    """What the model is given: after the mark a text in which nothing else is one."""
    return target.mark + (text.replace(target.apart, f"{target.apart} ") if target.apart else text)


def _marian(folder: Path, label: str) -> tuple[Any, dict[str, Target]]:
    """OPUS-MT (Tiedemann and Thottingal 2020): one target language, or a mark such as >>deu<<."""
    from transformers import MarianTokenizer

    tokenizer = MarianTokenizer.from_pretrained(folder, local_files_only=True)
    names = {lang: (*_OPUS.get(lang, ()), code[:3], lang) for lang, code in NLLB_CODES.items()}
    foreign = [lang for lang, known in names.items() if tokenizer.source_lang in known]
    if foreign and foreign != [SOURCE_LANGUAGE]:
        raise UserError(f"{label}: translates from '{tokenizer.source_lang}', wants one from English")
    targets = {}
    for lang, known in names.items():
        marks = [mark for name in known if (mark := f">>{name}<<") in tokenizer.supported_language_codes]
        if marks:
            targets[lang] = Target(mark=f"{marks[0]} ")
        elif tokenizer.target_lang in known:
            targets[lang] = Target()
    return tokenizer, targets


def _m2m(folder: Path, label: str) -> tuple[Any, dict[str, Target]]:
    """M2M-100 (Fan et al. 2020, arXiv 2010.11125) or NLLB-200: one architecture, two tokenizers."""
    from transformers import M2M100Tokenizer, NllbTokenizer

    if (folder / "vocab.json").is_file():
        tokenizer = M2M100Tokenizer.from_pretrained(folder, local_files_only=True, src_lang=SOURCE_LANGUAGE)
        return tokenizer, {
            lang: Target(token=tokenizer.get_lang_id(lang)) for lang in tokenizer.lang_code_to_token
        }
    english = NLLB_CODES[SOURCE_LANGUAGE]
    tokenizer = NllbTokenizer.from_pretrained(folder, local_files_only=True, src_lang=english)
    vocabulary = tokenizer.get_vocab()
    if english not in vocabulary:
        raise UserError(f"{label}: its tokenizer knows no language code '{english}', so it is no NLLB-200")
    return tokenizer, {
        lang: Target(token=vocabulary[code]) for lang, code in NLLB_CODES.items() if code in vocabulary
    }


def _t5(folder: Path, label: str) -> tuple[Any, dict[str, Target]]:
    """MADLAD-400 (Kudugunta et al. 2023, arXiv 2309.04662): a mark such as <2de> for each language.

    They are pieces like others to the tokenizer, wherever they stand in a text.
    """
    from transformers import T5Tokenizer

    tokenizer = T5Tokenizer.from_pretrained(folder, local_files_only=True)
    vocabulary = tokenizer.get_vocab()
    marks = {found[1]: mark for mark in vocabulary if (found := re.fullmatch(r"<2([a-z]{2,3})>", mark))}
    if not marks:
        raise UserError(
            f"{label}: its tokenizer knows no language mark such as '<2de>', so it is no MADLAD-400"
        )
    marks |= {lang: marks[old] for lang, old in _MADLAD.items() if lang not in marks and old in marks}
    return tokenizer, {lang: Target(mark=f"{mark} ", apart="<") for lang, mark in marks.items()}


FAMILIES: dict[str, Callable[[Path, str], tuple[Any, dict[str, Target]]]] = {
    "marian": _marian,
    "m2m_100": _m2m,
    "t5": _t5,
}
"""By transformers' `model_type`: a folder's tokenizer, and how it is told each language."""
