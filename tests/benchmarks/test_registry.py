import hashlib
import os

import pytest

from conftest import ROOT, SAMPLE
from hexapla.benchmarks import registry
from hexapla.config import Benchmark
from hexapla.io import download, hashing
from hexapla.schema import UserError
from stand_ins import lareqa, mteb, paragraph, serving

COMMIT = "a" * 40
BODIES = {lang: lareqa(paragraph(("q1", 1))).encode() + b" " * (lang == "en") for lang in ("de", "en")}
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
    return Benchmark(name="two", url=f"{address}/{{lang}}.json", **{"sha256": SUMS, **keys})


def test_files_of_a_url_are_fetched_once_checked_and_listed(tmp_path, cache):
    with serving({f"/{lang}.json": [body] for lang, body in BODIES.items()}) as (address, asked):
        found = registry.find(remote(address, languages=("en",)))
        assert (found.name, found.format, found.languages) == ("two", "lareqa", ("en",))
        placed = registry.place(found, tmp_path / "out")
        # All of them come, since training data are searched for every language of a benchmark.
        assert placed == {f"{lang}.json": (SUMS[lang], len(BODIES[lang])) for lang in BODIES}
        assert registry.find(remote(address)).folder == found.folder
        assert sorted(asked) == ["/de.json", "/en.json"]
        (found.folder / "de.json").write_text("rotten")
        registry.find(remote(address))
        assert sorted(asked) == ["/de.json", "/de.json", "/en.json"]
    assert (tmp_path / "out" / "en.json").read_bytes() == BODIES["en"]
    assert found.folder.parent == cache / "benchmarks"


def test_what_came_before_a_failure_is_not_fetched_again(cache):
    answers = {"/de.json": [BODIES["de"]], "/en.json": [b"other", BODIES["en"]]}
    with serving(answers) as (address, asked):
        with pytest.raises(UserError, match=r"/en\.json: has sha256 .*, not "):
            registry.find(remote(address))
        registry.find(remote(address))
        assert asked == ["/de.json", "/en.json", "/en.json"]
        with pytest.raises(
            UserError, match=r"HTTP 404.*put the files into data/benchmarks/two and give that as `path:`"
        ):
            registry.find(remote(f"{address}/gone"))


def test_without_a_checksum_the_one_that_came_is_told(monkeypatch, caplog):
    preset = registry.PRESETS["mlqa-r"]
    with serving({f"/{lang}.json": [BODIES["de"]] for lang in preset.languages}) as (address, _):
        monkeypatch.setitem(registry.PRESETS, "mlqa-r", preset._replace(url=f"{address}/{{lang}}.json"))
        found = registry.resolve("mlqa-r", [])
    assert found.languages == preset.languages
    assert len(caplog.messages) == 7
    assert all(SUMS["de"] in message for message in caplog.messages)


def test_only_the_asked_languages_come_from_the_hub_and_only_once(tmp_path, hub):
    benchmark = Benchmark(name="wiki", hub="own/er", revision=COMMIT, languages=("sw",))
    found = registry.find(benchmark)
    assert (found.format, found.languages) == ("miracl", ("sw",))
    placed = registry.place(found, tmp_path / "out")
    assert set(placed) == {
        "sw-corpus/dev-00000-of-00002.parquet", "sw-corpus/dev-00001-of-00002.parquet",
        "sw-queries/dev-00000-of-00001.parquet", "sw-qrels/dev-00000-of-00001.parquet",
    }  # fmt: skip
    for name, file in placed.items():
        assert file == (hashing.sha256(tmp_path / "hub" / name), (tmp_path / "hub" / name).stat().st_size)
        # A corpus has gigabytes: no copy where a link does.
        assert (tmp_path / "out" / name).samefile(tmp_path / "hub" / name)
    assert registry.find(benchmark) == found
    assert len(hub) == 1
    assert "sw-corpus/*.parquet" in hub[0]
    assert not any(pattern.startswith("de") for pattern in hub[0])
    assert registry.find(benchmark.__class__(name="all", hub="own/er", revision=COMMIT)).languages == (
        "de",
        "sw",
    )


def test_links_that_can_not_be_made_are_copies(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError("another file system")))
    registry.place(registry.find(Benchmark(name="w", hub="own/er", revision=COMMIT)), tmp_path / "out")
    name = "de-qrels/dev-00000-of-00001.parquet"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "hub" / name).read_bytes()
    assert not (tmp_path / "out" / name).samefile(tmp_path / "hub" / name)


def test_a_dataset_with_a_gap_or_without_a_benchmark_leaves_no_cache(tmp_path, hub, cache):
    (tmp_path / "hub" / "sw-corpus" / "dev-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"sw-corpus/dev-00000-of-00002\.parquet: missing, of 2 such files"):
        registry.find(Benchmark(name="wiki", hub="own/er", revision=COMMIT))
    with pytest.raises(UserError, match=rf"own/er@{COMMIT}: holds no files in miracl format"):
        registry.find(
            Benchmark(name="wiki", hub="own/er", revision=COMMIT, languages=("fr",), format="miracl")
        )
    assert not list(cache.rglob("*.parquet"))


def test_a_folder_is_read_where_it_lies_and_checked(tmp_path, cache):
    for lang, body in BODIES.items():
        (tmp_path / f"{lang}.json").write_bytes(body)
    (tmp_path / "LICENSE").write_text("yours")
    found = registry.find(Benchmark(name="own", path=str(tmp_path), sha256={"de": SUMS["de"]}))
    assert found.folder == tmp_path
    assert found.files == ("de.json", "en.json")
    assert not cache.exists()
    with pytest.raises(UserError, match=r"de\.json: has sha256 .* put the right file there"):
        registry.find(Benchmark(name="own", path=str(tmp_path), sha256={"de.json": "0" * 64}))
    with pytest.raises(UserError, match="sha256 is given for 'fr', which is not among its files"):
        registry.find(Benchmark(name="own", path=str(tmp_path), sha256={"fr": "0" * 64}))
    with pytest.raises(UserError, match="in lareqa format, not miracl"):
        registry.find(Benchmark(name="own", path=str(tmp_path), format="miracl"))
    with pytest.raises(UserError, match="language 'fr' is missing; it holds de, en"):
        registry.find(Benchmark(name="own", path=str(tmp_path), languages=("fr",)))
    with pytest.raises(UserError, match="language 'fr' is missing; it holds sw"):
        registry.find(Benchmark(name="w", path=str(mteb(tmp_path / "w", "sw")), languages=("fr",)))


def test_a_configured_name_goes_before_a_preset_and_that_before_a_folder(tmp_path, monkeypatch):
    own = Benchmark(name="xquad-r", path=str(SAMPLE / "benchmark"), languages=("de",))
    assert registry.resolve("xquad-r", [own]).folder == SAMPLE / "benchmark"
    monkeypatch.chdir(ROOT)
    assert registry.resolve("data/sample/benchmark", [own]).name == "benchmark"
    assert len(registry.resolve("data/sample/benchmark", []).languages) == 11
    with pytest.raises(
        UserError, match=r"'xquad': no such .* did you mean 'xquad-r'\? params.yaml has none; presets"
    ):
        registry.resolve("xquad", [])
