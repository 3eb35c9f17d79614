"""Tiny translation models of the four families, in their real formats.

They learn six sentences by heart in each of two languages: so one knows what must come out.
"""

import functools
import warnings
from pathlib import Path

import sentencepiece
import torch
import transformers

from hexapla.io import cache

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


def pieces(folder: Path, name: str, texts: list[str], kind: str, *marks: str) -> list[str]:
    """Train a SentencePiece model `<folder>/<name>`; returns its pieces without the special ones."""
    model = sentencepiece.SentencePieceTrainer.train
    with (folder / name).open("wb") as file:
        options = {"vocab_size": 90, "hard_vocab_limit": False, "minloglevel": 2, "model_type": kind}
        options["user_defined_symbols"] = list(marks)
        model(sentence_iterator=iter(texts), model_writer=file, **options)
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
    return [spm.id_to_piece(i) for i in range(3, spm.get_piece_size())]


def save_vocabulary(folder: Path, *names: str) -> int:
    cache.write_json(folder / "vocab.json", {name: i for i, name in enumerate(dict.fromkeys(names))})
    return len(set(names))


SIZES = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
         (("layers", 1), ("attention_heads", 2), ("ffn_dim", 64))}  # fmt: skip
SIZES |= {"d_model": 32, "dropout": 0.0, "attention_dropout": 0.0, "max_position_embeddings": 64}
ALL = [*EN, *TAUGHT["de"], *TAUGHT["es"]]


def marian(folder: Path) -> tuple[transformers.PreTrainedModel, object]:
    both = [*pieces(folder, "source.spm", EN, "unigram"), *pieces(folder, "target.spm", ALL[6:], "unigram")]
    size = save_vocabulary(folder, "</s>", "<unk>", *both, ">>deu<<", ">>spa<<", "<pad>")
    cache.write_json(folder / "tokenizer_config.json", {"source_lang": "en", "target_lang": "gmw"})
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


def madlad(folder: Path) -> tuple[transformers.PreTrainedModel, object]:
    # As MADLAD-400's: decoding starts with the first token, not with that of padding.
    pieces(folder, "spiece.model", ALL, "unigram", "<2de>", "<2es>", "<2iw>")
    tokenizer = transformers.T5Tokenizer.from_pretrained(folder, extra_ids=0, pad_token="<s>")
    tokenizer.save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=len(tokenizer) + 3, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config), tokenizer


CODES = {
    "marian": {"de": ">>deu<< ", "es": ">>spa<< "},
    "m2m100": {"de": "__de__", "es": "__es__"},
    "nllb": {"de": "deu_Latn", "es": "spa_Latn"},
    "madlad": {"de": "<2de> ", "es": "<2es> "},
}
BUILDERS = {"marian": marian, "m2m100": m2m100, "nllb": nllb, "madlad": madlad}


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
        if loss.item() < 1e-2:
            break
        loss.backward()
        optimizer.step()
        if isinstance(model, transformers.MarianMTModel):  # OPUS-MT starts from nothing, and never writes it
            model.model.shared.weight.data[tokenizer.pad_token_id] = 0
            model.generation_config.bad_words_ids = [[tokenizer.pad_token_id]]


@functools.cache
def taught(root: Path) -> dict[str, Path]:
    """A folder of each family below `root`, made once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for models this small, waiting for each other takes most of the time
    folders = {}
    for name, build in BUILDERS.items():
        folders[name] = root / f"tiny-{name}"
        folders[name].mkdir()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, tokenizer = build(folders[name])
            teach(model.train(), tokenizer, CODES[name])
        model.save_pretrained(folders[name])
    torch.set_num_threads(threads)
    return folders
