"""One engine for a setting, checked for all languages before any work."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

import tiny_models
from conftest import SAMPLE
from hexapla.config import (
    TranslateFromMemory,
    TranslateWithApertium,
    TranslateWithCTranslate2,
    TranslateWithTransformers,
)
from hexapla.data.translate import ctranslate2_engine, engines
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
