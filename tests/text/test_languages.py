import unicodedata

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from conftest import LANGUAGES, sample
from hexapla.text.languages import (
    Identifier,
    base_language,
    find_scripts,
    is_known_language,
    script_shares,
    standard_code,
)


@pytest.mark.parametrize(
    "code",
    ["en", "de", "zh", "zh-Hant", "pt-BR", "en_US", "deu", "yue", "wuu", "ckb", "fil", "sr-Latn", "EN"],
)
def test_languages_are_known(code):
    assert is_known_language(code)


@pytest.mark.parametrize(
    "code", ["", " ", "xx", "jp", "cn", "gr", "klingon", "english", "e", "und", "mul", "mis", "e n", "1"]
)
def test_what_is_no_language_is_not_known(code):
    assert not is_known_language(code)


@pytest.mark.parametrize(
    ("standard", "codes"),
    [
        ("de", "DE de deu ger"), ("en-US", "en_US EN-us eng-US"), ("zh-Hant-TW", "zh_hant_tw zh-Hant-TW"),
        ("tl", "tl TL tgl"), ("fil", "fil FIL"), ("ja", "jpn ja"), ("pt-BR", "pt_br por-BR"),
    ],
)  # fmt: skip
def test_a_language_has_one_code(standard, codes):
    assert {standard_code(code) for code in codes.split()} == {standard}
    assert standard_code(standard_code(codes.split()[-1])) == standard


@pytest.mark.parametrize(("code", "expected"), [("zh-Hant", "zh"), ("pt_BR", "pt"), ("de", "de"), ("", "")])
def test_base_of_a_language_code(code, expected):
    assert base_language(code) == expected


# --- scripts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "scripts"),
    [
        ("en", "Latn"), ("deu", "Latn"), ("ja", "Hani Hira Kana"), ("ko", "Hang"), ("zh-Hant", "Hani"),
        ("zh_TW", "Hani"), ("sr-Latn", "Cyrl Latn"), ("sr", "Cyrl Latn"), ("grc", "Grek"), ("el", "Grek"),
        ("ckb", "Arab"), ("pa", "Guru"), ("uz", "Latn"), ("uz-Cyrl", "Cyrl Latn"), ("tlh", ""), ("", ""),
        ("dev", ""), ("questions", ""),
    ],
)  # fmt: skip
def test_scripts_that_a_language_is_written_in(code, scripts):
    assert find_scripts(code) == set(scripts.split())


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_sample_is_in_its_own_script_and_in_no_other(lang):
    text = " ".join(row["passage"] for row in sample(lang)[:50])
    for other in LANGUAGES:
        shared = find_scripts(lang) & find_scripts(other)
        (share,) = script_shares([text], other)
        assert share > 0.9 if shared else share < 0.1


@pytest.mark.parametrize(
    ("text", "lang", "share"),
    [
        ("кот cat", "ru", 0.5),
        ("ＡＢＣ", "en", 1.0),
        ("ひらがな カタカナ 漢字 ー々", "ja", 1.0),
        ("한국어", "ko", 1.0),
        ("नमस्ते", "hi", 1.0),
        ("ภาษาไทย", "th", 1.0),
        ("Београд Beograd", "sr-Latn", 1.0),
        ("п\u02bcять", "uk", 1.0),
        ("1234 ?!", "en", 0.0),
        ("", "en", np.nan),
        (" ", "en", np.nan),
        (None, "en", np.nan),
        ("anything", "tlh", np.nan),
    ],
)
def test_share_of_the_letters_in_the_script(text, lang, share):
    np.testing.assert_equal(script_shares([text], lang), [share])


# Python's own Unicode database is older than the libraries'.
assigned = st.characters(exclude_categories=["Cn", "Cs"])
mixed = st.text(st.sampled_from("aÀßяЖ犬か한กิकि๓5 \n.ﬁ①Ａ\u0301\u200bªー〆ـ\u02bc"), max_size=20)


def share_by_pattern(text, lang):
    """An independent oracle: the scripts of the `regex` package."""
    plain = unicodedata.normalize("NFKC", text)
    own = "".join(rf"\p{{scx={script}}}" for script in find_scripts(lang))
    letters = regex.findall(r"\p{L}", plain)
    return len(regex.findall(rf"[\p{{L}}&&[{own}]]", plain, regex.V1)) / max(1, len(letters))


@given(
    st.lists(mixed | st.text(assigned, max_size=8), max_size=4),
    st.sampled_from(["en", "zh", "ja", "sr", "th", "hi", "uk-UA"]),
)
def test_shares_agree_with_another_library(texts, lang):
    wanted = [share_by_pattern(text, lang) if text.strip() else np.nan for text in texts]
    np.testing.assert_equal(script_shares(texts, lang), wanted)


# --- the language of a text ----------------------------------------------------------------------


def test_identifier_tells_the_sample_apart():
    identifier = Identifier(LANGUAGES)
    rows = [
        (lang, row[text])
        for lang in LANGUAGES
        for row in sample(lang)[::4]
        for text in ("passage", "question")
    ]
    wrong = [(lang, text) for lang, text in rows if identifier.find(text) != lang]
    assert len(wrong) <= len(rows) // 500
    assert identifier.known == set(LANGUAGES)


def test_identifier_names_a_language_that_the_table_does_not_have():
    identifier = Identifier(["en", "de"])
    assert identifier.find("Le chat dort sur le canapé pendant que la pluie tombe dehors.") == "fr"
    assert identifier.find("Il gatto dorme sul divano mentre fuori piove a dirotto.") == "it"


def test_identifier_says_which_languages_it_does_not_know():
    assert Identifier(["en", "tlh", "zh-Hant", ""]).known == {"en", "zh-Hant"}


def test_identifiers_share_a_model_but_not_their_choice_of_languages():
    # Marathi is none of the big languages that are always in the running; its relative Hindi is.
    text = "महाराष्ट्रात मराठी ही राजभाषा आहे आणि ती अनेक लोक बोलतात."
    marathi = Identifier(["mr"])
    assert marathi.find(text) == "mr"
    assert Identifier(["en"]).find(text) != "mr"
    assert marathi.find(text) == "mr"
