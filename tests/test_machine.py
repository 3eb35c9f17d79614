"""The machine engine on tiny models of the three families, in their real formats.

They learn six sentences by heart in each of two languages: so one knows what must come out.
"""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece
import torch
import transformers

from hexapla import machine as machines
from hexapla import store
from hexapla.machine import Machine
from hexapla.records import Mistake
from test_translation import pair, refused, run

EN = ["the cat sleeps", "the dog runs", "a bird sings", "the cat runs at night", "a dog sleeps", "one bird"]
TAUGHT = {
    "de": [
        "die Katze schläft",
        "der Hund rennt",
        "ein Vogel singt",
        "nachts rennt die Katze",
        "ein Hund",
        "Vogel",
    ],
    "es": [
        "el gato duerme",
        "el perro corre",
        "un pájaro",
        "corre el gato de noche",
        "un perro duerme",
        "ave",
    ],
}


# --- tiny models of three families -----------------------------------------------------------------


def pieces(folder: Path, name: str, texts: list[str], kind: str) -> list[str]:
    """Train a SentencePiece model `<folder>/<name>`; returns its pieces without the special ones."""
    model = sentencepiece.SentencePieceTrainer.train
    with (folder / name).open("wb") as file:
        options = {"vocab_size": 90, "hard_vocab_limit": False, "minloglevel": 2, "model_type": kind}
        model(sentence_iterator=iter(texts), model_writer=file, **options)
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
    return [spm.id_to_piece(i) for i in range(3, spm.get_piece_size())]


def save_vocabulary(folder: Path, *names: str) -> int:
    store.write_json(folder / "vocab.json", {name: i for i, name in enumerate(dict.fromkeys(names))})
    return len(set(names))


SIZES = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
         (("layers", 1), ("attention_heads", 2), ("ffn_dim", 64))}  # fmt: skip
SIZES |= {"d_model": 32, "dropout": 0.0, "attention_dropout": 0.0, "max_position_embeddings": 64}
ALL = [*EN, *TAUGHT["de"], *TAUGHT["es"]]


def marian(folder: Path) -> tuple[transformers.PreTrainedModel, object]:
    both = [*pieces(folder, "source.spm", EN, "unigram"), *pieces(folder, "target.spm", ALL[6:], "unigram")]
    size = save_vocabulary(folder, "</s>", "<unk>", *both, ">>deu<<", ">>spa<<", "<pad>")
    store.write_json(folder / "tokenizer_config.json", {"source_lang": "en", "target_lang": "gmw"})
    config = transformers.MarianConfig(
        vocab_size=size, pad_token_id=size - 1, decoder_start_token_id=size - 1, eos_token_id=0,
        forced_eos_token_id=0, scale_embedding=True, **SIZES,
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):
        return transformers.MarianMTModel(config), transformers.MarianTokenizer.from_pretrained(folder)


def m2m100(folder: Path) -> tuple[transformers.PreTrainedModel, object]:
    size = save_vocabulary(
        folder, "<s>", "<pad>", "</s>", "<unk>", *pieces(folder, "sentencepiece.bpe.model", ALL, "bpe")
    )
    config = transformers.M2M100Config(vocab_size=size + 108, max_length=200, **SIZES)
    return transformers.M2M100ForConditionalGeneration(config), transformers.M2M100Tokenizer.from_pretrained(
        folder
    )


def nllb(folder: Path) -> tuple[transformers.PreTrainedModel, object]:
    pieces(folder, "sentencepiece.bpe.model", ALL, "bpe")
    codes = ["eng_Latn", "deu_Latn", "spa_Latn", "zho_Hans"]
    tokenizer = transformers.NllbTokenizer.from_pretrained(folder, extra_special_tokens=codes)
    tokenizer.save_pretrained(folder)
    config = transformers.M2M100Config(vocab_size=len(tokenizer), max_length=200, **SIZES)
    return transformers.M2M100ForConditionalGeneration(config), tokenizer


CODES = {
    "marian": {"de": ">>deu<< ", "es": ">>spa<< "},
    "m2m100": {"de": "__de__", "es": "__es__"},
    "nllb": {"de": "deu_Latn", "es": "spa_Latn"},
}


def teach(model: transformers.PreTrainedModel, tokenizer: object, codes: dict[str, str]) -> None:
    """By heart: English after the mark, or the language's token before the machines."""
    marked = codes["de"].endswith(" ")
    sources = [(codes[lang] if marked else "") + text for lang in TAUGHT for text in EN]
    given = tokenizer(sources, padding=True, return_tensors="pt")
    labels = []
    for lang, translations in TAUGHT.items():
        for text in translations:
            if marked:
                body = tokenizer(text_target=text)["input_ids"]
            else:
                body = [tokenizer.convert_tokens_to_ids(codes[lang]), *tokenizer(text)["input_ids"][1:]]
            labels.append(torch.tensor(body))
    labels = torch.nn.utils.rnn.pad_sequence(labels, True, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = model(**given, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for models this small, waiting for each other takes most of the time
    folders = {}
    for name, build in {"marian": marian, "m2m100": m2m100, "nllb": nllb}.items():
        folders[name] = tmp_path_factory.mktemp(name) / f"tiny-{name}"
        folders[name].mkdir()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, tokenizer = build(folders[name])
            teach(model.train(), tokenizer, CODES[name])
        model.save_pretrained(folders[name])
    yield folders
    torch.set_num_threads(threads)


FAMILIES = ("marian", "m2m100", "nllb")


@pytest.mark.parametrize("family", FAMILIES)
def test_machine_writes_the_language_that_was_asked_for(family, taught) -> None:
    machine = Machine(str(taught[family]), batch_size=4, beams=1)
    machine.check(["de", "es"])
    assert machine.name == f"transformers:tiny-{family}"
    for lang, translations in TAUGHT.items():
        assert machine.translate(EN, lang) == [(text,) for text in translations]


@pytest.mark.parametrize("family", FAMILIES)
def test_order_batches_and_neighbours_do_not_matter(family, taught) -> None:
    texts = [*EN, *EN[::-1], "the cat the dog the bird", "", "a bird at night runs"]
    alone = Machine(str(taught[family]), batch_size=1, beams=2)
    known = dict(zip(texts, alone.translate(texts, "es"), strict=True))
    assert known[""] == ()
    for size, shown in ((3, texts), (64, texts[::-1]), (5, texts[4:11])):
        machine = Machine(str(taught[family]), batch_size=size, beams=2)
        assert machine.translate(shown, "es") == [known[text] for text in shown]


def test_equal_texts_are_translated_once_and_the_longest_first(
    taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(str(taught["m2m100"]), batch_size=2, beams=1)
    sizes: list[list[int]] = []

    def write(batch: list[list[int]], target: machines.Target) -> list[str]:
        sizes.append([len(ids) for ids in batch])
        return ["x"] * len(batch)

    monkeypatch.setattr(machine, "_generate", write)
    assert machine.translate([EN[1], EN[5], EN[1], EN[3]], "de") == [("x",)] * 4
    assert [len(batch) for batch in sizes] == [2, 1]
    lengths = [length for batch in sizes for length in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_fit_or_end_has_no_translation(family, taught) -> None:
    machine = Machine(str(taught[family]), batch_size=4, beams=1)
    assert machine.translate([EN[0], "the cat " * 60], "de")[1] == ()
    assert machine.translate([" "], "de") == [()]
    # Now it never stops by itself; Marian's is made to end at the limit.
    machine._model.generation_config.sequence_bias = [[[machine._tokenizer.eos_token_id], -1e4]]
    assert machine.translate(EN, "de") == [()] * len(EN)


@pytest.mark.parametrize(
    ("family", "known"), [("marian", "de, es"), ("nllb", "de, es, zh"), ("m2m100", "zh")]
)
def test_machine_refuses_a_language_before_any_work(family, known, taught) -> None:
    machine = Machine(str(taught[family]), batch_size=4, beams=1)
    with pytest.raises(Mistake, match=f"translate.languages: .*tiny-{family}' has no 'xx' .*{known}"):
        machine.check(["de", "xx"])
    assert "_model" not in vars(machine)


def test_the_samples_languages_and_more_have_codes() -> None:
    wanted = "ar zh de es ru th tr hi el vi fr it ja ko pt en".split()  # noqa: SIM905 - reads better
    from transformers.models.nllb import tokenization_nllb

    assert {*wanted} <= {*machines.NLLB_CODES}
    assert {*machines.NLLB_CODES.values()} <= {*tokenization_nllb.FAIRSEQ_LANGUAGE_CODES}


def opus(folder: Path, source: Path, config: dict[str, str], *marks: str) -> Path:
    """A copy of the tiny OPUS-MT with other language marks."""
    shutil.copytree(source, folder)
    vocabulary = store.read_json(folder / "vocab.json")
    for new, old in zip(marks or ("a", "b"), (">>deu<<", ">>spa<<"), strict=True):
        vocabulary[new] = vocabulary.pop(old)
    store.write_json(folder / "vocab.json", vocabulary)
    store.write_json(folder / "tokenizer_config.json", config)
    return folder


def test_opus_of_one_language_and_of_many(taught, tmp_path: Path) -> None:
    one = opus(tmp_path / "one", taught["marian"], {"source_lang": "eng", "target_lang": "deu"})
    assert Machine(str(one), batch_size=1, beams=1)._targets == {"de": machines.Target()}
    many = opus(tmp_path / "many", taught["marian"], {"source_lang": "en"}, ">>cmn_Hans<<", ">>pt<<")
    marks = {lang: target.mark for lang, target in Machine(str(many), batch_size=1, beams=1)._targets.items()}
    assert marks == {"zh": ">>cmn_Hans<< ", "pt": ">>pt<< "}
    back = opus(tmp_path / "back", taught["marian"], {"source_lang": "de", "target_lang": "en"})
    with pytest.raises(Mistake, match="translates from 'de'"):
        Machine(str(back), batch_size=1, beams=1)


def test_an_nllb_tokenizer_without_codes_is_refused(taught, tmp_path: Path) -> None:
    # Its own class would silently take <unk> for the language.
    shutil.copytree(taught["nllb"], tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "bare" / name).unlink()
    with pytest.raises(Mistake, match="eng_Latn"):
        Machine(str(tmp_path / "bare"), batch_size=1, beams=1)


def test_missing_weights_are_refused(taught, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(taught["m2m100"], tmp_path / "part")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.encoder.layers.0.fc1.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Mistake, match="weights are missing .*fc1"):
        Machine(str(folder), batch_size=1, beams=1).translate(["x"], "de")


def test_stage_with_a_machine(tmp_path: Path, taught) -> None:
    whole = pair()._replace(negatives=(EN[2], "the cat " * 60))
    store.write_pairs(tmp_path / "raw.parquet", [whole, pair(EN[2], "the cat " * 60)])
    run(
        tmp_path,
        tmp_path / "raw.parquet",
        engine="transformers",
        model=str(taught["nllb"]),
        languages=["es", "de"],
    )
    made = list(store.iter_pairs(store.read_pairs(tmp_path / "out.parquet")))
    assert [(one.lang, one.question, one.negatives, one.engine) for one in made[2:]] == [
        ("es", TAUGHT["es"][0], (TAUGHT["es"][2],), "transformers:tiny-nllb"),
        ("de", TAUGHT["de"][0], (TAUGHT["de"][2],), "transformers:tiny-nllb"),
    ]
    languages = store.read_json(tmp_path / "summary.json")["languages"]
    assert languages["es"] == {"translated": 1, "missing": 1, "answers_lost": 0, "negatives_lost": 1}


def test_bad_models_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], taught) -> None:
    store.write_pairs(tmp_path / "raw.parquet", [pair()])
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "model.safetensors").write_bytes(b"x")
    store.write_json(foreign / "config.json", {"model_type": "bert"})
    broken = shutil.copytree(taught["m2m100"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"x" * 64)
    cut = shutil.copytree(taught["m2m100"], tmp_path / "cut")
    (cut / "vocab.json").write_text("{", encoding="utf-8")
    cases = {
        "Helsinki-NLP/opus-mt-en-de": ["pin the revision", "@<commit>"],
        "./gone": ["no such folder"],
        "a/b/c@main": ["no such folder"],
        str(pickled): ["no safetensors"],
        str(foreign): ["is 'bert'", "marian or m2m_100"],
        str(broken): ["broken", "can't be loaded"],
        str(cut): ["cut", "can't be loaded"],
    }
    for model, wanted in cases.items():
        refused(tmp_path, capsys, wanted, engine="transformers", model=model, languages=["de"])


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(repository: str, *, revision: str, **options: object) -> None:
        assert (repository, revision) == ("owner/name", "refs/pr/3")
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(Mistake, match="owner/name@refs/pr/3.*hub.*ConnectionError.*local folder"):
        Machine("owner/name@refs/pr/3", batch_size=1, beams=1)
