import pytest

from hexapla.text import languages
from hexapla.text.language_codes import known_language, plain


@pytest.mark.parametrize(
    "code",
    ["en", "de", "zh", "zh-Hant", "pt-BR", "en_US", "deu", "yue", "wuu", "ckb", "fil", "sr-Latn", "EN"],
)
def test_languages_are_known(code):
    assert known_language(code)


@pytest.mark.parametrize(
    "code", ["", " ", "xx", "jp", "cn", "gr", "klingon", "english", "e", "und", "mul", "mis", "e n", "1"]
)
def test_what_is_no_language_is_not(code):
    assert not known_language(code)


@pytest.mark.parametrize(
    ("plainly", "codes"),
    [
        ("de", "DE de deu ger"), ("en-US", "en_US EN-us eng-US"), ("zh-Hant-TW", "zh_hant_tw zh-Hant-TW"),
        ("tl", "tl TL tgl"), ("fil", "fil FIL"), ("ja", "jpn ja"), ("pt-BR", "pt_br por-BR"),
    ],
)  # fmt: skip
def test_a_language_has_one_code(plainly, codes):
    assert {plain(code) for code in codes.split()} == {plainly}
    assert plain(plain(codes.split()[-1])) == plainly


def test_codes_that_texts_are_checked_by_are_plain():
    assert [lang for lang in languages.SCRIPTS if plain(lang) != lang] == []
