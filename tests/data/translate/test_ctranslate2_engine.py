"""CTranslate2 writes the same tokens as transformers, with the same tiny models, from a cache that is whole."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tiny_models
from hexapla.data.translate import ctranslate2_engine, nmt
from hexapla.data.translate.ctranslate2_engine import CTranslate2Engine
from hexapla.data.translate.nmt import TransformersEngine
from hexapla.io import cache
from hexapla.schema import UserError
from hexapla.text import sentences
from tiny_models import EN, TAUGHT

ctranslate2 = pytest.importorskip("ctranslate2", reason="the extra ctranslate2 is not installed")

FAMILIES = ("marian", "m2m100", "nllb", "madlad")
ODD = [
    "the cat the dog the bird",
    "at night a bird",
    "runs runs runs runs",
    "sings the cat at one night bird",
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_models.taught(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def engine(model: Path, compute: str = "fp32", beams: int = 1) -> CTranslate2Engine:
    return CTranslate2Engine(str(model), compute=compute, batch_tokens=64, beams=beams)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_tokens_as_transformers(family, taught) -> None:
    one, other = TransformersEngine(str(taught[family]), batch_tokens=64, beams=1), engine(taught[family])
    model = one._opened
    for lang in TAUGHT:
        target = model.targets[lang]
        tokens = model.encode([*EN, *ODD], target)
        wanted = [one._generate([ids], 30, target) for ids in tokens]
        assert [other._generate([ids], 30, target) for ids in tokens] == wanted
        assert other._generate(tokens, 30, target) == [ids for (ids,) in wanted]


@pytest.mark.parametrize("compute", ["auto", "int8", "bf16", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_learnt_comes_out_in_any_precision(family, compute, taught) -> None:
    made = engine(taught[family], compute)
    if compute == "bf16" and "bfloat16" not in ctranslate2.get_supported_compute_types(
        ctranslate2_engine._find_device()
    ):
        with pytest.raises(UserError, match="can't do 'bf16'; take auto"):
            made.translate(EN, "de")
        return
    made.check(["de", "es"])
    assert made.name == f"ctranslate2:tiny-{family}"
    for lang, translations in TAUGHT.items():
        assert made.translate(EN, lang) == [(text,) for text in translations]
        assert made.translate(EN[::-1], lang) == [(text,) for text in translations[::-1]]


def test_int8_sums_can_not_saturate_on_processors_without_vnni() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((6, 64)) * 10.0 ** np.arange(-3, 3)[:, None]
    weights[5], weights[0] = 0, 1e-42
    integers, scale = ctranslate2_engine.quantize_rows(weights.astype(np.float32))
    pairs = np.abs(integers.astype(int)).reshape(6, 32, 2).sum(-1)
    assert (255 * pairs).max() <= np.iinfo(np.int16).max
    assert np.abs(integers[1:5]).max(1).tolist() == [ctranslate2_engine.INT8_MOST] * 4
    assert np.isfinite(scale).all()
    error = np.abs(integers[1:] / scale[1:, None] - weights[1:])
    assert (error <= 0.5001 / scale[1:, None]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_as_sure_as_fp32(family, taught) -> None:
    """Only weights that saturate make a taught model unsure of what it learnt by heart."""
    likely = {}
    for compute in ("int8", "fp32"):
        made = engine(taught[family], compute)
        model, target = made._opened, made._opened.targets["de"]
        tokens = model.encode(EN, target)
        translate, scores = made._translator.translate_batch, []
        made.__dict__["_translator"] = SimpleNamespace(
            translate_batch=lambda *given, translate=translate, scores=scores, **options: [
                scores.append(result.scores[0]) or result
                for result in translate(*given, return_scores=True, **options)
            ]
        )
        made._generate(tokens, 30, target)
        likely[compute] = scores
    assert likely["int8"] == pytest.approx(likely["fp32"], abs=0.03)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_fit_or_end_has_no_translation(family, taught, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(taught[family])
    assert made.translate([EN[0], "the cat " * 300, " "], "de") == [(TAUGHT["de"][0],), (), ()]
    translate = made._translator.translate_batch

    class Endless:
        def translate_batch(self, *given, **options):
            return translate(*given, min_decoding_length=options["max_decoding_length"], **options)

    made.__dict__["_translator"] = Endless()
    assert made.translate(EN, "de") == [()] * len(EN)


def test_a_model_is_converted_once_whoever_comes_first(taught, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path))
    model = engine(taught["nllb"])._opened
    folder = ctranslate2_engine.convert(model, "int8_float32")
    assert (folder.parent / "CACHEDIR.TAG").is_file(), "hexapla cache prunes no folder without"
    before = (folder / "model.bin").stat().st_mtime_ns
    assert ctranslate2_engine.convert(model, "int8") == folder
    assert (folder / "model.bin").stat().st_mtime_ns == before
    assert ctranslate2_engine.convert(model, "float32") != folder
    (folder / "model.bin").unlink()  # A folder without it is no model, and is not taken for one.
    assert (ctranslate2_engine.convert(model, "int8") / "model.bin").stat().st_mtime_ns > before


def test_of_two_that_need_a_model_at_once_one_converts(taught, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path))
    calls: list[str] = []
    convert = ctranslate2_engine._convert

    def counted(*given) -> None:
        calls.append("x")
        time.sleep(0.2)
        convert(*given)

    monkeypatch.setattr(ctranslate2_engine, "_convert", counted)
    two = [engine(taught["marian"]), engine(taught["marian"])]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda each: each.translate(EN[:1], "de"), two)) == [[(TAUGHT["de"][0],)]] * 2
    assert len(calls) == 1


KINDS = {"cpu": {"float32"}, "cuda": {"float32", "float16", "int8_float16", "int8_float32"}}


@pytest.mark.parametrize(
    ("device", "wanted"),
    [("cpu", ["float32", "", "", "float32"]), ("cuda", ["float16", "int8_float16", "", "float32"])],
)
def test_a_type_is_the_best_that_the_device_can(device, wanted, taught, monkeypatch) -> None:
    package = SimpleNamespace(
        get_supported_compute_types=KINDS.get, get_cuda_device_count=lambda: int(device == "cuda"),
        __version__="5",
    )  # fmt: skip
    monkeypatch.setattr(ctranslate2_engine, "_import_ctranslate2", lambda: package)
    for compute, kind in zip(("auto", "int8", "bf16", "fp32"), wanted, strict=True):
        if kind:
            assert ctranslate2_engine._choose_type(compute, device) == kind
        else:
            with pytest.raises(
                UserError, match=f"^translate.compute: this machine's {device} can't do '{compute}'"
            ):
                ctranslate2_engine._choose_type(compute, device)
        # The machines that plan and those that translate may differ: to name work is no mistake.
        assert f" {kind or compute} " in engine(taught["nllb"], compute).identity("de")


def test_identity_and_a_missing_package(taught, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(taught["nllb"])
    others = [engine(taught["nllb"], "int8"), engine(taught["marian"]), engine(taught["nllb"], beams=2)]
    assert len({made.identity("es"), *(other.identity("de") for other in (made, *others))}) == 5
    assert engine(taught["nllb"]).identity("de") == made.identity("de")
    for module, name in ((sentences, "identity"), (nmt, "version")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_: "another")
            assert "another" in made.identity("de")

    def gone(name: str):
        raise ImportError(name)

    monkeypatch.setattr(ctranslate2_engine.importlib, "import_module", gone)
    with pytest.raises(UserError, match=r"pip install 'hexapla\[ctranslate2\]'"):
        engine(taught["nllb"])


def test_broken_weights_are_one_line(taught, tmp_path: Path) -> None:
    for file in taught["m2m100"].iterdir():
        (tmp_path / file.name).write_bytes(b"x" * 64 if file.suffix == ".safetensors" else file.read_bytes())
    with pytest.raises(UserError, match="can't be loaded"):
        engine(tmp_path).translate(["x"], "de")
    assert not list((cache.cache_root() / "ctranslate2").glob(".*"))
