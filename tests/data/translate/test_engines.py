"""One engine for a setting, checked for all languages before any work, and texts sentence by sentence."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from conftest import SAMPLE
from hexapla.config import (
    TranslateFromMemory,
    TranslateWithApertium,
    TranslateWithCTranslate2,
    TranslateWithTransformers,
)
from hexapla.data.translate import ctranslate2_engine, engines
from hexapla.data.translate.engines import translate_by_sentence
from hexapla.schema import UserError
from tiny_models import EN, TAUGHT


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_models.taught(tmp_path_factory.getbasetemp())


def test_memory_is_the_default_and_built_once() -> None:
    settings = TranslateFromMemory(languages=("de", "es"))
    engines.check_engines(settings, SAMPLE)
    one = engines.build_engine(settings, SAMPLE, "de")
    assert one.name == "memory"
    assert engines.build_engine(pickle.loads(pickle.dumps(settings)), SAMPLE, "es") is one
    assert engines.build_engine(TranslateWithApertium(languages=("es",)), SAMPLE, "es") is not one
    with pytest.raises(UserError, match="memory has no 'fr'"):
        engines.check_engines(replace(settings, languages=("de", "fr")), SAMPLE)


def test_each_language_has_its_model(taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TranslateWithTransformers(
        languages=("de", "es", "zh"), model=str(taught["nllb"]),
        models={"es": str(taught["marian"])},
    )  # fmt: skip
    engines.check_engines(settings, SAMPLE)
    names = {lang: engines.build_engine(settings, SAMPLE, lang).name for lang in settings.languages}
    assert names == {lang: f"transformers:tiny-{'marian' if lang == 'es' else 'nllb'}" for lang in names}
    assert engines.build_engine(settings, SAMPLE, "de") is engines.build_engine(settings, SAMPLE, "zh")
    assert engines.build_engine(settings, SAMPLE, "es").translate(EN[:1], "es") == [(TAUGHT["es"][0],)]
    with pytest.raises(UserError, match="tiny-marian' has no 'zh'"):
        engines.check_engines(replace(settings, models={"zh": str(taught["marian"])}), SAMPLE)


def test_ctranslate2_is_checked_before_any_work(taught, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TranslateWithCTranslate2(languages=("de",), model=str(taught["nllb"]), compute="int8")

    def gone(name: str):
        raise ImportError(name)

    engines._build.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ctranslate2_engine.importlib, "import_module", gone)
        with pytest.raises(UserError, match=r"hexapla\[ctranslate2\]"):
            engines.check_engines(settings, SAMPLE)
    pytest.importorskip("ctranslate2", reason="the extra ctranslate2 is not installed")
    engines.check_engines(settings, SAMPLE)
    assert "int8" in engines.build_engine(settings, SAMPLE, "de").identity("de")
    with pytest.raises(UserError, match="no such folder"):
        engines.check_engines(replace(settings, models={"de": "./gone"}), SAMPLE)


# --- texts as sentences --------------------------------------------------------------------------

PARTS = [
    "The cat sleeps.",
    "Is it so?",
    "No!",
    "1,994.",
    "-- --",
    "Dr. Who came.",
    "(It did.)",
    "日本。",
    "\u200f",
    "e\u0301",
]
SPACES = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", " \n "]


def shout(cores):
    return [core.upper() for core in cores]


@given(st.lists(st.tuples(st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from(SPACES)), max_size=6),
                          st.sampled_from(["", *SPACES])), max_size=4))  # fmt: skip
def test_what_is_not_a_sentence_stays_and_equal_ones_are_seen_once(drawn) -> None:
    texts = [before + "".join(part + space for part, space in parts) for parts, before in drawn]
    seen: list[str] = []

    def spy(cores):
        seen.extend(cores)
        return shout(cores)

    translated = translate_by_sentence(texts, "de", spy)
    # Of these scripts' texts, to change all sentences is to change the text.
    assert translated == [(text.upper(),) if text.strip() else () for text in texts]
    assert len(seen) == len(set(seen))
    assert all(core == core.strip() and len(core.splitlines()) == 1 for core in seen)
    assert all(any(map(str.isalpha, core)) for core in seen)


@given(st.text(max_size=40))
def test_any_text_comes_back_from_an_engine_that_changes_nothing(text) -> None:
    assert translate_by_sentence([text], "de", list) == (
        [(text,)] if text.strip() and "\0" not in text else [()]
    )


def test_one_sentence_without_translation_is_a_text_without() -> None:
    known = {"It runs.": "Es rennt.", "It sleeps.": "Es schläft."}
    texts = ["It runs. It sleeps.", "It runs. It sings.", "It sings.", "It runs."]
    translated = translate_by_sentence(texts, "de", lambda cores: [known.get(core) for core in cores])
    assert translated == [("Es rennt. Es schläft.",), (), (), ("Es rennt.",)]


def test_no_text_has_no_translation() -> None:
    assert translate_by_sentence(["", " \n", "\ud800 x", "a\0b"], "de", shout) == [()] * 4


def test_numbers_stay_without_an_engine() -> None:
    assert translate_by_sentence(["1994", "3.14 %", "1994"], "de", lambda _: 1 / 0) == [
        ("1994",),
        ("3.14 %",),
        ("1994",),
    ]


def test_chinese_has_no_spaces_between_sentences_and_thai_has() -> None:
    texts = ["It runs. It sleeps.\nIt runs. ABC runs. It runs."]
    known = {"It runs.": "跑。", "It sleeps.": "睡。", "ABC runs.": "ABC"}
    find = known.__getitem__
    assert translate_by_sentence(texts, "zh", lambda cores: list(map(find, cores))) == [
        ("跑。睡。\n跑。ABC 跑。",)
    ]
    assert translate_by_sentence(["It runs. It runs. "], "ja", lambda cores: list(map(find, cores))) == [
        ("跑。跑。 ",)
    ]
    assert translate_by_sentence(["It runs. It runs."], "th", lambda _: ["วิ่ง"]) == [("วิ่ง วิ่ง",)]
