"""The transformers engine on tiny models of the four families, in their real formats."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from hexapla.data.translate import nmt
from hexapla.data.translate.nmt import Target, TransformersEngine, cut_batches
from hexapla.io import cache
from hexapla.schema import UserError
from hexapla.text import languages, sentences
from tiny_models import EN, TAUGHT


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_models.taught(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for models this small, waiting for each other takes most of the time
    yield
    torch.set_num_threads(threads)


FAMILIES = ("marian", "m2m100", "nllb", "madlad")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_writes_the_language_that_was_asked_for(family, taught) -> None:
    engine = TransformersEngine(str(taught[family]), batch_tokens=64, beams=1)
    engine.check(["de", "es"])
    assert engine.name == f"transformers:tiny-{family}"
    for lang, translations in TAUGHT.items():
        assert engine.translate(EN, lang) == [(text,) for text in translations]


@pytest.mark.parametrize("family", FAMILIES)
def test_order_batches_and_neighbours_do_not_matter(family, taught) -> None:
    texts = [*EN, *EN[::-1], "the cat the dog the bird", "", "a bird at night runs"]
    alone = TransformersEngine(str(taught[family]), batch_tokens=1, beams=2)
    known = dict(zip(texts, alone.translate(texts, "es"), strict=True))
    assert known[""] == ()
    for size, shown in ((24, texts), (4096, texts[::-1]), (50, texts[4:11])):
        engine = TransformersEngine(str(taught[family]), batch_tokens=size, beams=2)
        assert engine.translate(shown, "es") == [known[text] for text in shown]


def test_equal_sentences_are_translated_once_and_the_longest_first(
    taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(str(taught["m2m100"]), batch_tokens=16, beams=1)
    sizes: list[list[int]] = []

    def write(batch: list[list[int]], most: int, target: Target) -> list[list[int]]:
        sizes.append([len(ids) for ids in batch])
        return [[0, *engine._opened.tokenizer("one bird")["input_ids"][1:-1]]] * len(batch)

    monkeypatch.setattr(engine, "_generate", write)
    assert engine.translate([EN[1], f"One. {EN[5]}.", EN[1], f"One. {EN[3]}"], "de") == [
        ("one bird",), ("one bird one bird",), ("one bird",), ("one bird one bird",),
    ]  # fmt: skip
    lengths = [length for batch in sizes for length in batch]
    assert len(lengths) == 4
    assert lengths == sorted(lengths, reverse=True)
    assert all(len(batch) * max(batch) <= 16 for batch in sizes if len(batch) > 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_in_a_text_is_a_control_token_or_a_mark(family, taught) -> None:
    model = nmt.open_model(str(taught[family]))
    tokenizer, target = model.tokenizer, model.targets["de"]
    names = ["<s>", "</s>", "<pad>", "<unk>", "__es__", "spa_Latn", ">>spa<<", "<2es>"]
    # transformers has T5's number of <unk> for what MADLAD does not know either: there it is </s>.
    unknown = {tokenizer.unk_token_id, *([2] if family == "madlad" else [])}
    control = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(names)} - unknown

    def controls(text: str) -> list[int]:
        return [number for number in model.encode([text], target)[0] if number in control]

    for name in names:
        assert controls(f"the cat {name} runs{name}") == controls("the cat runs")
    plain = tokenizer([target.mark + text for text in EN])["input_ids"]
    assert model.encode(EN, target) == plain


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_fit_or_end_has_no_translation(family, taught) -> None:
    engine = TransformersEngine(str(taught[family]), batch_tokens=64, beams=1)
    assert engine.translate([EN[0], "the cat " * 300], "de")[1] == ()
    assert engine.translate([" "], "de") == [()]
    # Now it never stops by itself; Marian's is made to end at the limit.
    end = engine._opened.tokenizer.eos_token_id
    engine._model.generation_config.sequence_bias = [[[end], -1e4]]
    assert engine.translate(EN, "de") == [()] * len(EN)


@pytest.mark.parametrize(
    ("family", "known"),
    [("marian", "de, es"), ("nllb", "de, es, zh"), ("m2m100", "zh"), ("madlad", "de, es, he, iw")],
)
def test_the_engine_refuses_a_language_before_any_work(family, known, taught) -> None:
    engine = TransformersEngine(str(taught[family]), batch_tokens=64, beams=1)
    with pytest.raises(UserError, match=f"translate.languages: .*tiny-{family}' has no 'xx' .*{known}"):
        engine.check(["de", "xx"])
    assert "_model" not in vars(engine)


# From the paper's table 1 (arXiv 2207.04672), by hand: those of the sample, of macrolanguages and of scripts.
NLLB = """
    en eng_Latn  ar arb_Arab  de deu_Latn  el ell_Grek  es spa_Latn  hi hin_Deva  ru rus_Cyrl  th tha_Thai
    tr tur_Latn  vi vie_Latn  zh zho_Hans  zh-Hant zho_Hant  yue yue_Hant  fa pes_Arab  fa-AF prs_Arab
    lv lvs_Latn  ms zsm_Latn  sw swh_Latn  et est_Latn  ne npi_Deva  uz uzn_Latn  ko kor_Hang  ja jpn_Jpan
    sr srp_Cyrl  arz arz_Arab  tl tgl_Latn  ak aka_Latn  tw twi_Latn  kr knc_Latn  kr-Arab knc_Arab
    ks kas_Arab  ks-Deva kas_Deva  yo yor_Latn  nb nob_Latn  nn nno_Latn
"""


def test_every_language_of_nllb_has_a_code_that_the_settings_take() -> None:
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    words = NLLB.split()
    pieces = ["▁the", "ab_Latn", "deu_latn", "zzz_Latn", "<unk>"]
    names = nmt.name_nllb_languages([*FAIRSEQ_LANGUAGE_CODES, *pieces])
    assert sorted(names.values()) == sorted(FAIRSEQ_LANGUAGE_CODES)
    assert len(names) == 202
    languages.check_languages(names, "translate.languages")
    assert {lang: names[lang] for lang in words[::2]} == dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize(
    ("names", "lang", "best"),
    [
        ("ar arz arb ara", "ar", "ara"),
        ("zh cmn_Hant zho cmn cmn_Hans", "zh", "cmn_Hans"),
        ("zsm_Latn ms zsm msa", "ms", "msa"),
        ("ceb", "ceb", "ceb"),
        ("srp", "sr", "srp"),
    ],
)
def test_of_several_marks_for_a_language_opus_takes_the_best(names, lang, best, taught, tmp_path) -> None:
    marks = [f">>{name}<<" for name in names.split()]
    shutil.copytree(taught["marian"], tmp_path / "opus")
    cache.write_json(tmp_path / "opus" / "tokenizer_config.json", {"source_lang": "eng"})
    vocabulary = cache.read_json(tmp_path / "opus" / "vocab.json")
    kept = {name: number for name, number in vocabulary.items() if not name.startswith(">>")}
    more = {mark: len(vocabulary) + number for number, mark in enumerate(marks)}
    cache.write_json(tmp_path / "opus" / "vocab.json", kept | more)
    config = cache.read_json(tmp_path / "opus" / "config.json")
    size = len(vocabulary) + len(marks)
    cache.write_json(tmp_path / "opus" / "config.json", config | {"vocab_size": size})
    assert nmt.open_model(str(tmp_path / "opus")).targets[lang] == Target(mark=f">>{best}<< ")


# --- batches -------------------------------------------------------------------------------------

TOKENS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), max_size=40)


@given(TOKENS, st.integers(1, 40), st.randoms())
def test_batches_hold_all_under_the_budget_in_one_order(tokens, budget, random) -> None:
    batches = cut_batches(tokens, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(tokens)))
    lengths = [[len(tokens[position]) for position in batch] for batch in batches]
    assert all(len(batch) * max(batch) <= budget for batch in lengths if len(batch) > 1)
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    # None could take the next one's first as well: fewer batches would not do in this order.
    for batch, following in pairwise(lengths):
        assert (len(batch) + 1) * batch[0] > budget, (batch, following)
    shuffled = list(tokens)
    random.shuffle(shuffled)
    again = [[shuffled[position] for position in batch] for batch in cut_batches(shuffled, budget)]
    assert again == [[tokens[position] for position in batch] for batch in batches]


# --- families and models -------------------------------------------------------------------------


def opus(folder: Path, source: Path, config: dict[str, str], *marks: str) -> Path:
    """A copy of the tiny OPUS-MT with other language marks."""
    shutil.copytree(source, folder)
    vocabulary = cache.read_json(folder / "vocab.json")
    for new, old in zip(marks or ("a", "b"), (">>deu<<", ">>spa<<"), strict=True):
        vocabulary[new] = vocabulary.pop(old)
    cache.write_json(folder / "vocab.json", vocabulary)
    cache.write_json(folder / "tokenizer_config.json", config)
    return folder


def test_opus_of_one_language_and_of_many(taught, tmp_path: Path) -> None:
    one = opus(tmp_path / "one", taught["marian"], {"source_lang": "eng", "target_lang": "deu"})
    assert nmt.open_model(str(one)).targets == {"de": Target()}
    many = opus(tmp_path / "many", taught["marian"], {"source_lang": "en"}, ">>cmn_Hans<<", ">>pt<<")
    marks = {lang: target.mark for lang, target in nmt.open_model(str(many)).targets.items()}
    assert marks == {"zh": ">>cmn_Hans<< ", "pt": ">>pt<< "}
    back = opus(tmp_path / "back", taught["marian"], {"source_lang": "de", "target_lang": "en"})
    with pytest.raises(UserError, match="translates from 'de'"):
        TransformersEngine(str(back), batch_tokens=1, beams=1)


def test_an_nllb_tokenizer_without_codes_is_refused(taught, tmp_path: Path) -> None:
    # Its own class would silently take <unk> for the language.
    shutil.copytree(taught["nllb"], tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "bare" / name).unlink()
    with pytest.raises(UserError, match="eng_Latn"):
        TransformersEngine(str(tmp_path / "bare"), batch_tokens=1, beams=1)


def test_missing_weights_are_refused(taught, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(taught["m2m100"], tmp_path / "part")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.encoder.layers.0.fc1.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks weights: .*fc1"):
        TransformersEngine(str(folder), batch_tokens=1, beams=1).translate(["x"], "de")


BAD_MODELS = {
    "Helsinki-NLP/opus-mt-en-de": ["pin the revision", "@<commit>"],
    "./gone": ["no such folder"],
    "a/b/c@main": ["no such folder"],
    "pickled": ["no safetensors"],
    "foreign": ["is 'bert'", "marian, m2m_100 or t5"],
    "plain-t5": ["no language mark", "MADLAD-400"],
    "broken": ["broken", "can't be loaded"],
    "cut": ["cut", "can't be loaded"],
}


@pytest.mark.parametrize("model", BAD_MODELS)
def test_a_bad_model_is_one_line(model, tmp_path: Path, taught) -> None:
    folder = tmp_path / model
    if model in ("broken", "cut"):
        shutil.copytree(taught["m2m100"], folder)
    elif model == "plain-t5":
        shutil.copytree(taught["madlad"], folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        tiny_models.pieces(folder, "spiece.model", EN, "unigram")
    elif "/" not in model:
        folder.mkdir()
    if model in ("foreign", "broken"):
        (folder / "model.safetensors").write_bytes(b"x" * 64)
    if model == "foreign":
        cache.write_json(folder / "config.json", {"model_type": "bert"})
    if model == "pickled":
        (folder / "pytorch_model.bin").write_bytes(b"x")
    if model == "cut":
        (folder / "vocab.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        TransformersEngine(str(folder) if folder.is_dir() else model, batch_tokens=9, beams=1).translate(
            ["x"], "de"
        )
    assert len(str(refused.value).splitlines()) == 1
    assert all(part in str(refused.value) for part in BAD_MODELS[model])


def test_identity_is_of_content_language_settings_and_libraries(taught, tmp_path: Path, monkeypatch) -> None:
    copy = shutil.copytree(taught["nllb"], tmp_path / "elsewhere")
    one = TransformersEngine(str(taught["nllb"]), batch_tokens=64, beams=1)
    assert TransformersEngine(str(copy), batch_tokens=9, beams=1).identity("de") == one.identity("de")
    assert TransformersEngine(str(copy), batch_tokens=9, beams=2).identity("de") != one.identity("de")
    assert one.identity("es") != one.identity("de")
    for module, name in ((sentences, "identity"), (nmt, "version")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_: "another")
            assert one.identity("de") != TransformersEngine(str(copy), batch_tokens=64, beams=1).identity(
                "es"
            )
            assert "another" in one.identity("de")
    assert TransformersEngine(str(taught["m2m100"]), batch_tokens=64, beams=1).identity("de") != one.identity(
        "de"
    )
    config = cache.read_json(copy / "generation_config.json")
    cache.write_json(copy / "generation_config.json", {**config, "repetition_penalty": 2.0})
    assert TransformersEngine(str(copy), batch_tokens=9, beams=1).identity("de") != one.identity("de")


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(repository: str, *, revision: str, **options: object) -> None:
        assert (repository, revision) == ("owner/name", "c" * 40)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError, match="owner/name@c{40}.*hub.*ConnectionError.*local folder"):
        TransformersEngine(f"owner/name@{'c' * 40}", batch_tokens=1, beams=1)
