import re

import pytest

from conftest import ROOT
from hexapla.benchmarks import lareqa
from hexapla.benchmarks.presets import PRESETS
from hexapla.config import Benchmark
from hexapla.io import hashing

XQUAD_R = ROOT.parent / "shared" / "benchmarks" / "xquad-r"


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_pinned_and_a_benchmark_by_its_name_alone(name):
    preset = PRESETS[name]
    assert bool(preset.url) != bool(preset.hub)
    assert re.search(r"/[0-9a-f]{40}/.*\{lang\}", preset.url) or re.fullmatch("[0-9a-f]{40}", preset.revision)
    assert set(preset.sha256) <= set(preset.languages)
    assert preset.licence
    assert preset.paper
    assert preset.megabytes > 0
    benchmark = Benchmark(preset=name)
    assert benchmark.name == name
    assert benchmark.origin.languages == preset.languages


def test_miracl_has_18_languages_together_or_one_by_one():
    for stem in ("miracl", "miracl-hard"):
        assert len(PRESETS[stem].languages) == 18
        each = [PRESETS[f"{stem}-{lang}"] for lang in PRESETS[stem].languages]
        assert sum(preset.megabytes for preset in each) == PRESETS[stem].megabytes
        assert {preset.revision for preset in each} == {PRESETS[stem].revision}
    assert PRESETS["miracl-hard"].megabytes < PRESETS["miracl"].megabytes / 40


@pytest.mark.skipif(not XQUAD_R.is_dir(), reason="XQuAD-R is not at hand")
def test_xquad_r_has_the_published_checksums():
    files = lareqa.files(XQUAD_R)
    assert {lang: hashing.sha256(file) for lang, file in files.items()} == PRESETS["xquad-r"].sha256
    assert tuple(files) == PRESETS["xquad-r"].languages
