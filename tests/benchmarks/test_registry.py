import hashlib
import os
import re

import pytest
import yaml
from pydantic.dataclasses import dataclass

from conftest import ROOT, SAMPLE
from hexapla.benchmarks import lareqa as benchmarks
from hexapla.benchmarks import registry
from hexapla.benchmarks.registry import PRESETS
from hexapla.config import AnyBenchmark, FolderBenchmark, HubBenchmark, PresetBenchmark, UrlBenchmark, reading
from hexapla.io import download, hashing
from hexapla.schema import UserError
from stand_ins import lareqa, mteb, paragraph, serving

COMMIT = "a" * 40
BODIES = {lang: lareqa(paragraph(("q1", 1))).encode() + b" " * (lang == "en") for lang in ("de", "en")}
SHA = "0" * 64
SUMS = {lang: hashlib.sha256(body).hexdigest() for lang, body in BODIES.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one dataset, of German and Swahili; gives the patterns that were asked for."""
    asked = []
    for lang in ("de", "sw"):
        mteb(tmp_path / "hub", lang, shards=2)

    def snapshot_download(dataset, *, repo_type, revision, allow_patterns):
        assert (dataset, repo_type, revision) == ("own/er", "dataset", COMMIT)
        asked.append(allow_patterns)
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def remote(address, **keys):
    return UrlBenchmark(name="two", url=f"{address}/{{lang}}.json", **{"sha256": SUMS, **keys})


def test_files_of_a_url_are_fetched_once_checked_and_listed(tmp_path, cache):
    with serving({f"/{lang}.json": [body] for lang, body in BODIES.items()}) as (address, asked):
        found = registry.fetch(remote(address, languages=("en",)))
        assert (found.name, found.format, found.languages) == ("two", "lareqa", ("en",))
        placed = registry.copy(found, tmp_path / "out")
        # All of them come, since training data are searched for every language of a benchmark.
        assert placed == {f"{lang}.json": (SUMS[lang], len(BODIES[lang])) for lang in BODIES}
        assert registry.fetch(remote(address)).folder == found.folder
        assert sorted(asked) == ["/de.json", "/en.json"]
        (found.folder / "de.json").write_text("rotten")
        registry.fetch(remote(address))
        assert sorted(asked) == ["/de.json", "/de.json", "/en.json"]
    assert (tmp_path / "out" / "en.json").read_bytes() == BODIES["en"]
    assert found.folder.parent == cache / "benchmarks"


def test_what_came_before_a_failure_is_not_fetched_again(cache):
    answers = {"/de.json": [BODIES["de"]], "/en.json": [b"other", BODIES["en"]]}
    with serving(answers) as (address, asked):
        with pytest.raises(UserError, match=r"/en\.json: has sha256 .*, not "):
            registry.fetch(remote(address))
        registry.fetch(remote(address))
        assert asked == ["/de.json", "/en.json", "/en.json"]
        with pytest.raises(
            UserError, match=r"HTTP 404.*put the files into data/benchmarks/two and give that as `path:`"
        ):
            registry.fetch(remote(f"{address}/gone"))


def test_without_a_checksum_the_one_that_came_is_told(monkeypatch, caplog):
    preset = registry.PRESETS["mlqa-r"]
    with serving({f"/{lang}.json": [BODIES["de"]] for lang in preset.languages}) as (address, _):
        monkeypatch.setitem(registry.PRESETS, "mlqa-r", preset._replace(url=f"{address}/{{lang}}.json"))
        found = registry.look_up("mlqa-r", [])
    assert found.languages == preset.languages
    assert len(caplog.messages) == 7
    assert all(SUMS["de"] in message for message in caplog.messages)


def test_only_the_asked_languages_come_from_the_hub_and_only_once(tmp_path, hub):
    benchmark = HubBenchmark(name="wiki", hub="own/er", revision=COMMIT, languages=("sw",))
    found = registry.fetch(benchmark)
    assert (found.format, found.languages) == ("miracl", ("sw",))
    placed = registry.copy(found, tmp_path / "out")
    assert set(placed) == {
        "sw-corpus/dev-00000-of-00002.parquet", "sw-corpus/dev-00001-of-00002.parquet",
        "sw-queries/dev-00000-of-00001.parquet", "sw-qrels/dev-00000-of-00001.parquet",
    }  # fmt: skip
    for name, file in placed.items():
        assert file == (hashing.sha256(tmp_path / "hub" / name), (tmp_path / "hub" / name).stat().st_size)
    assert registry.fetch(benchmark) == found
    assert len(hub) == 1
    assert "sw-corpus/*.parquet" in hub[0]
    assert not any(pattern.startswith("de") for pattern in hub[0])
    assert registry.fetch(HubBenchmark(name="all", hub="own/er", revision=COMMIT)).languages == (
        "de",
        "sw",
    )


def test_an_edit_of_what_was_copied_changes_no_cache(tmp_path, hub):
    name = "de-qrels/dev-00000-of-00001.parquet"
    before = (tmp_path / "hub" / name).read_bytes()
    local = registry.fetch(HubBenchmark(name="w", hub="own/er", revision=COMMIT))
    registry.copy(local, tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(b"mine")
    assert (tmp_path / "hub" / name).read_bytes() == before
    assert (local.folder / name).read_bytes() == before


def test_where_no_links_can_be_made_the_cache_has_copies(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError("another file system")))
    local = registry.fetch(HubBenchmark(name="w", hub="own/er", revision=COMMIT))
    name = "de-qrels/dev-00000-of-00001.parquet"
    assert (local.folder / name).read_bytes() == (tmp_path / "hub" / name).read_bytes()
    assert not (local.folder / name).samefile(tmp_path / "hub" / name)


def test_passages_of_miracl_have_no_context(tmp_path):
    folder = mteb(tmp_path / "w", "sw")
    benchmark = FolderBenchmark(name="w", path=str(folder), passage_unit="sentence_in_context")
    with pytest.raises(UserError, match="'w': passage_unit: passages in MIRACL format have no context"):
        registry.fetch(benchmark)


def test_a_dataset_with_a_gap_or_without_a_benchmark_leaves_no_cache(tmp_path, hub, cache):
    (tmp_path / "hub" / "sw-corpus" / "dev-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"sw-corpus/dev-00000-of-00002\.parquet: missing, of 2 such files"):
        registry.fetch(HubBenchmark(name="wiki", hub="own/er", revision=COMMIT))
    with pytest.raises(UserError, match=rf"own/er@{COMMIT}: holds no files in miracl format"):
        registry.fetch(
            HubBenchmark(name="wiki", hub="own/er", revision=COMMIT, languages=("fr",), format="miracl")
        )
    assert not list(cache.rglob("*.parquet"))


def test_a_folder_is_read_where_it_lies_and_checked(tmp_path, cache):
    for lang, body in BODIES.items():
        (tmp_path / f"{lang}.json").write_bytes(body)
    (tmp_path / "LICENSE").write_text("yours")
    found = registry.fetch(FolderBenchmark(name="own", path=str(tmp_path), sha256={"de": SUMS["de"]}))
    assert found.folder == tmp_path
    assert found.files == ("de.json", "en.json")
    assert not cache.exists()
    with pytest.raises(UserError, match=r"de\.json: has sha256 .* put the right file there"):
        registry.fetch(FolderBenchmark(name="own", path=str(tmp_path), sha256={"de.json": "0" * 64}))
    with pytest.raises(UserError, match="sha256 is given for 'fr', which is not among its files"):
        registry.fetch(FolderBenchmark(name="own", path=str(tmp_path), sha256={"fr": "0" * 64}))
    with pytest.raises(UserError, match="in lareqa format, not miracl"):
        registry.fetch(FolderBenchmark(name="own", path=str(tmp_path), format="miracl"))
    with pytest.raises(UserError, match="language 'fr' is missing; it holds de, en"):
        registry.fetch(FolderBenchmark(name="own", path=str(tmp_path), languages=("fr",)))
    with pytest.raises(UserError, match="language 'fr' is missing; it holds sw"):
        registry.fetch(FolderBenchmark(name="w", path=str(mteb(tmp_path / "w", "sw")), languages=("fr",)))


def test_a_configured_name_goes_before_a_preset_and_that_before_a_folder(tmp_path, monkeypatch):
    own = FolderBenchmark(name="xquad-r", path=str(SAMPLE / "benchmark"), languages=("de",))
    assert registry.look_up("xquad-r", [own]).folder == SAMPLE / "benchmark"
    monkeypatch.chdir(ROOT)
    assert registry.look_up("data/sample/benchmark", [own]).name == "benchmark"
    assert len(registry.look_up("data/sample/benchmark", []).languages) == 11
    with pytest.raises(
        UserError, match=r"'xquad': no such .* did you mean 'xquad-r'\? params.yaml has none; presets"
    ):
        registry.look_up("xquad", [])


# --- origins and presets --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Written(reading.Section):
    benchmark: AnyBenchmark


def read(tmp_path, **keys):
    """A benchmark as a section of a YAML file gives it, and where it comes from."""
    path = tmp_path / "benchmark.yaml"
    path.write_text(yaml.safe_dump({"benchmark": keys}), encoding="utf-8")
    benchmark = reading.read(path, Written).benchmark
    return benchmark, registry.origin(benchmark)


def test_a_folder_is_taken_as_it_is(tmp_path):
    _, origin = read(tmp_path, name="sample", path="data/sample/benchmark")
    assert origin == registry.Origin(path="data/sample/benchmark")
    assert str(origin) == "data/sample/benchmark"


def test_a_preset_brings_its_name_and_all_that_pins_it(tmp_path):
    benchmark, origin = read(tmp_path, preset="xquad-r", languages=["de", "en"])
    assert (benchmark.name, benchmark.languages) == ("xquad-r", ("de", "en"))
    # The others come too: training data are searched for all of them.
    assert origin.languages == PRESETS["xquad-r"].languages
    assert origin.sha256 == PRESETS["xquad-r"].sha256
    assert str(read(tmp_path, preset="miracl-sw")[1]) == (
        "mteb/MIRACLRetrieval@9c09abc13478308c27598f350e31d8f06b9b5481"
    )
    # Of a corpus only what was asked for.
    assert read(tmp_path, preset="miracl", languages=["yo"])[1].languages == ("yo",)
    assert read(tmp_path, preset="mlqa-r", sha256={"de": SHA})[1].sha256 == {"de": SHA}


def test_the_languages_of_a_url_are_those_of_its_checksums(tmp_path):
    _, origin = read(tmp_path, name="n", url="https://x.org/{lang}.json", sha256={"de.json": SHA, "en": SHA})
    assert origin.languages == ("de", "en")
    assert origin.format == "lareqa"


URL = {"name": "n", "url": "https://x.org/{lang}.json", "sha256": {"de": SHA}}
HUB = {"name": "n", "hub": "own/er", "revision": COMMIT}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": "x"}, "benchmark.name: missing"),
        ({"name": "n"}, "benchmark: wants one of `preset`, `path`, `url`, `hub`; got none of them"),
        ({"name": "n", "path": "x", "hub": "own/er"}, "benchmark.hub: goes with `hub`, not with `path`; leave it out"),
        ({"preset": "xquadr"}, "preset: there is no 'xquadr'; did you mean 'xquad-r'?"),
        ({"preset": "xquad-r", "languages": ["fr"]}, "languages: 'fr' is not in xquad-r, which has ar, de"),
        ({"preset": "xquad-r", "languages": ["de", "de"]}, "languages: 'de' is listed twice"),
        ({"preset": "xquad-r", "revision": COMMIT}, "benchmark.revision: goes with `hub`, not with `preset`"),
        ({"preset": "xquad-r", "sha256": {"de": SHA}}, "sha256.de: the preset has another one"),
        ({"preset": "mlqa-r", "sha256": {"fr": SHA}}, "sha256.fr: no such file; languages are ar"),
        ({"name": "n", "path": "x", "passage_unit": "both"}, "passage_unit: 'both' is not one of"),
        ({"name": "n", "path": "x", "revision": COMMIT}, "benchmark.revision: goes with `hub`, not with `path`"),
        ({"name": "n", "path": "x", "sha256": {"de": "0"}}, "benchmark.sha256.de: wants 64 hexadecimal digits"),
        ({**URL, "url": "https://x.org/de.json"}, "url: wants {lang} once"),
        ({**URL, "url": "http://x.org/{lang}.json"}, "url: wants https://"),
        ({**URL, "url": "file:///x/{lang}.json"}, "url: wants https://"),
        ({**URL, "url": "https://me:secret@x.org/{lang}.json"}, "url: holds a user or a password"),
        ({**URL, "sha256": {}}, "sha256: a url needs one for each language, against"),
        ({**URL, "languages": ["de", "fr"]}, "against other bytes; missing: fr"),
        ({**URL, "format": "miracl"}, "benchmark.format: goes with `path` or `hub`, not with `url`"),
        ({**HUB, "hub": "er"}, "benchmark.hub: wants a dataset's id, owner/name, got 'er'"),
        (
            {**HUB, "revision": "main"},
            "benchmark.revision: wants a commit (40 hexadecimal digits), since a branch or tag may move, "
            "got 'main'",
        ),
        ({**HUB, "revision": ""}, "benchmark.revision: wants a commit (40 hexadecimal digits)"),
    ],
)  # fmt: skip
def test_what_is_not_pinned_or_does_not_fit_is_refused_by_its_key(tmp_path, keys, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(tmp_path, **keys)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_pinned_and_a_benchmark_by_its_name_alone(name):
    preset = PRESETS[name]
    assert bool(preset.url) != bool(preset.hub)
    assert re.search(r"/[0-9a-f]{40}/.*\{lang\}", preset.url) or re.fullmatch("[0-9a-f]{40}", preset.revision)
    assert set(preset.sha256) <= set(preset.languages)
    assert preset.license
    assert preset.paper
    assert preset.megabytes > 0
    benchmark = PresetBenchmark(preset=name)
    assert benchmark.name == name
    assert registry.origin(benchmark).languages == preset.languages


def test_miracl_has_18_languages_together_or_one_by_one():
    for stem in ("miracl", "miracl-hard"):
        assert len(PRESETS[stem].languages) == 18
        each = [PRESETS[f"{stem}-{lang}"] for lang in PRESETS[stem].languages]
        assert sum(preset.megabytes for preset in each) == PRESETS[stem].megabytes
        assert {preset.revision for preset in each} == {PRESETS[stem].revision}
    assert PRESETS["miracl-hard"].megabytes < PRESETS["miracl"].megabytes / 40


def test_xquad_r_has_the_published_checksums(xquad_r):
    files = benchmarks.files(xquad_r)
    assert {lang: hashing.sha256(file) for lang, file in files.items()} == PRESETS["xquad-r"].sha256
    assert tuple(files) == PRESETS["xquad-r"].languages
