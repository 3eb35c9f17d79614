import pytest

from conftest import LANGUAGES, sample
from hexapla.text.languages import SCRIPTS, Identifier, base, script_share


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_sample_is_in_its_own_script_and_in_no_other(lang):
    text = " ".join(row["passage"] for row in sample(lang)[:50])
    for other in LANGUAGES:
        shared = SCRIPTS[lang] & SCRIPTS[other]
        share = script_share(text, other)
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
        ("1234 ?!", "en", 0.0),
        ("", "en", 0.0),
        ("anything", "tlh", None),
    ],
)
def test_share_of_the_letters_in_the_script(text, lang, share):
    assert script_share(text, lang) == share


@pytest.mark.parametrize(("code", "expected"), [("zh-Hant", "zh"), ("pt_BR", "pt"), ("de", "de"), ("", "")])
def test_base_of_a_language_code(code, expected):
    assert base(code) == expected


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
