import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.modeling import centering
from hexapla.schema import UserError


def vectors(rng, langs, dim=8, accent=3.0):
    """Unit vectors that carry their language as a constant part."""
    accents = {lang: accent * rng.normal(size=dim) for lang in sorted(set(langs))}
    raw = rng.normal(size=(len(langs), dim)) + np.array([accents[lang] for lang in langs])
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 999), st.lists(st.sampled_from(["de", "en", "zh"]), min_size=2, max_size=30))
def test_means_are_of_each_language_and_results_are_unit_vectors(seed, langs):
    rng = np.random.default_rng(seed)
    given_vectors = vectors(rng, langs)
    means = centering.fit(given_vectors, langs)
    for lang in set(langs):
        rows = [i for i, each in enumerate(langs) if each == lang]
        np.testing.assert_allclose(means[lang], given_vectors[rows].mean(axis=0), atol=1e-6)
    centered = centering.center(given_vectors, langs, means)
    assert centered.dtype == np.float32
    lengths = np.linalg.norm(centered, axis=1)
    alone = np.array([langs.count(lang) == 1 for lang in langs])
    np.testing.assert_allclose(lengths[~alone], 1, atol=1e-5)
    assert (lengths[alone] == 0).all(), "a text that is its language's mean has no direction left"


def test_the_language_is_gone():
    rng = np.random.default_rng(0)
    langs = ["de", "zh"] * 200
    before = vectors(rng, langs)
    after = centering.center(before, langs, centering.fit(before, langs))

    def gap(each):
        return np.linalg.norm(each[::2].mean(axis=0) - each[1::2].mean(axis=0))

    assert gap(before) > 0.5
    assert gap(after) < 0.1


def test_stored_means_come_back_by_side(tmp_path):
    query, passage = (
        {"de": np.ones(3, np.float32)},
        {"de": np.zeros(3, np.float32), "zh-hant": np.ones(3, np.float32)},
    )
    centering.save(tmp_path, query, passage)
    one, two = centering.load(str(tmp_path))
    assert list(one) == ["de"]
    np.testing.assert_array_equal(two["zh-hant"], passage["zh-hant"])


def test_missing_means_are_named(tmp_path):
    with pytest.raises(UserError, match="no mean for language 'sw' \\(there are: de, en\\)"):
        centering.center(np.ones((1, 2)), ["sw"], {"en": np.ones(2), "de": np.ones(2)})
    with pytest.raises(
        UserError, match=r"centering\.safetensors: not found; only models that Hexapla trained"
    ):
        centering.load(tmp_path)
    (tmp_path / centering.FILE).write_bytes(b"nonsense")
    with pytest.raises(UserError, match="broken"):
        centering.load(tmp_path)
