import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hexapla import strict
from hexapla.benchmarks import origins
from hexapla.benchmarks.presets import PRESETS
from hexapla.config import Benchmark
from hexapla.schema import UserError

SHA, COMMIT = "0" * 64, "a" * 40


def read(tmp_path, **keys):
    path = tmp_path / "benchmark.yaml"
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return strict.load(path, Benchmark)


def test_a_folder_is_still_named_and_found_as_before(tmp_path):
    benchmark = read(tmp_path, name="sample", path="data/sample/benchmark")
    assert benchmark.origin == origins.Origin(path="data/sample/benchmark")
    assert str(benchmark.origin) == "data/sample/benchmark"


def test_a_preset_brings_its_name_and_all_that_pins_it(tmp_path):
    benchmark = read(tmp_path, preset="xquad-r", languages=["de", "en"])
    assert (benchmark.name, benchmark.languages) == ("xquad-r", ("de", "en"))
    # The others come too: training data are searched for all of them.
    assert benchmark.origin.languages == PRESETS["xquad-r"].languages
    assert benchmark.origin.sha256 == PRESETS["xquad-r"].sha256
    assert str(read(tmp_path, preset="miracl-sw").origin) == (
        "mteb/MIRACLRetrieval@9c09abc13478308c27598f350e31d8f06b9b5481"
    )
    # Of a corpus only what was asked for.
    assert read(tmp_path, preset="miracl", languages=["yo"]).origin.languages == ("yo",)
    assert read(tmp_path, preset="mlqa-r", sha256={"de": SHA}).origin.sha256 == {"de": SHA}


def test_the_languages_of_a_url_are_those_of_its_checksums(tmp_path):
    benchmark = read(tmp_path, name="n", url="https://x.org/{lang}.json", sha256={"de.json": SHA, "en": SHA})
    assert benchmark.origin.languages == ("de", "en")
    assert benchmark.origin.format == "lareqa"


URL = {"name": "n", "url": "https://x.org/{lang}.json", "sha256": {"de": SHA}}
HUB = {"name": "n", "hub": "own/er", "revision": COMMIT}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": "x"}, "name: missing"),
        ({"name": "n"}, "path: wants one of preset, path, url, hub; got none"),
        ({"name": "n", "path": "x", "hub": "own/er"}, "hub: wants one of preset, path, url, hub; got path"),
        ({"preset": "xquadr"}, "preset: there is no 'xquadr'; did you mean 'xquad-r'?"),
        ({"preset": "xquad-r", "languages": ["fr"]}, "languages: 'fr' is not in xquad-r, which has ar, de"),
        ({"preset": "xquad-r", "languages": ["de", "de"]}, "languages: 'de' stands twice"),
        ({"preset": "xquad-r", "revision": COMMIT}, "revision: the preset brings its own"),
        ({"preset": "xquad-r", "sha256": {"de": SHA}}, "sha256.de: the preset has another one"),
        ({"preset": "mlqa-r", "sha256": {"fr": SHA}}, "sha256.fr: no such file; languages are ar"),
        ({"preset": "miracl", "candidate_text": "sentence_in_context"}, "candidate_text: passages in MIRACL"),
        ({"name": "n", "path": "x", "candidate_text": "both"}, "candidate_text: 'both' is not one of"),
        ({"name": "n", "path": "x", "revision": COMMIT}, "revision: only what comes from the hub"),
        ({"name": "n", "path": "x", "sha256": {"de": "0"}}, "sha256.de: wants 64 hexadecimal digits"),
        ({**URL, "url": "https://x.org/de.json"}, "url: wants {lang} once"),
        ({**URL, "url": "http://x.org/{lang}.json"}, "url: wants https://"),
        ({**URL, "url": "file:///x/{lang}.json"}, "url: wants https://"),
        ({**URL, "url": "https://me:secret@x.org/{lang}.json"}, "url: holds a user or a password"),
        ({**URL, "sha256": {}}, "sha256: a url needs one for each language, against"),
        ({**URL, "languages": ["de", "fr"]}, "against other bytes; missing: fr"),
        ({**URL, "format": "miracl"}, "format: a url brings <lang>.json"),
        ({**HUB, "hub": "er"}, "hub: wants a dataset's id, owner/name; got 'er'"),
        ({**HUB, "revision": "main"}, "revision: wants a commit (40 hexadecimal digits); got 'main'"),
        ({**HUB, "revision": ""}, "revision: wants a commit (40 hexadecimal digits); without it"),
    ],
)  # fmt: skip
def test_what_is_not_pinned_or_does_not_fit_is_refused_by_its_key(tmp_path, keys, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(tmp_path, **keys)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text("abc:@/?#%", min_size=1))
def test_what_is_shown_of_an_address_has_no_user_password_or_query(middle):
    shown = origins.shown(f"https://me:secret@x.org/{middle}?token=secret#secret")
    assert shown.startswith("https://x.org/")
    assert "secret" not in shown


def test_only_this_machine_may_be_asked_without_tls():
    assert origins.fetchable("http://localhost:80/x")
    assert origins.fetchable("https://x.org")
    assert not origins.fetchable("http://localhost.x.org/")
    assert not origins.fetchable("http://127.0.0.1@x.org/")
