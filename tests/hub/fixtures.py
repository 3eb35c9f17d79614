"""Repositories as they are on the Hugging Face Hub: their real names, keys and schemas, with tiny content.

Lists of files, keys of weights and columns of tables are those of the real repositories, as far as their pages
tell. Weights are random. `make` builds one repository when a test wants it, since all of them together take long.
"""

import functools
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import BertWordPieceTokenizer

from conftest import SAMPLE, sample
from hexapla.benchmarks.registry import PRESETS
from hexapla.data.collect.sources import load_presets

XLMR = "e73636d4f797dec63c3081bb6ed5c7b0bb3f2089"
LABSE = "836121a0533e5664b21c7aacc5d22951f2b8b25b"
MBERT = "3f076fdb1ab68d5b2880cb87a0886f315b8146f8"
E5 = "fd1525a9fd15316a2d503bf26ab031a61d056e98"
ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40

WIDTH, LAYERS, HEADS = 32, 2, 4
PIECES = 1500
"""Size of every vocabulary, roughly."""
ROWS = 12
"""Rows of every dataset."""


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def texts(*langs: str, count: int = 24) -> list[str]:
    """Questions and passages of the shipped sample."""
    rows = (row for lang in langs or ("en", "de", "zh") for row in sample(lang)[:count])
    return [row[part] for row in rows for part in ("question", "passage")]


class Repo:
    """A repository's folder at one commit."""

    def __init__(self, root: Path, kind: str, name: str, commit: str, **refs: str) -> None:
        place = root / kind / name
        self.folder = place / commit
        self.folder.mkdir(parents=True)
        known = json.loads((place / "refs.json").read_text()) if (place / "refs.json").is_file() else {}
        write_json(place / "refs.json", {**known, **(refs or {"main": commit})})
        (self.folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")

    def json(self, **files: Any) -> None:
        for name, content in files.items():
            write_json(self.folder / f"{name.replace('__', '/')}.json", content)

    def text(self, name: str, content: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(content, encoding="utf-8")

    def pickled(self, weights: Mapping[str, torch.Tensor], name: str = "pytorch_model.bin") -> None:
        torch.save(dict(weights), self.folder / name)

    def weights(self, weights: Mapping[str, torch.Tensor], name: str = "model.safetensors") -> None:
        held = {key: value.contiguous().clone() for key, value in weights.items()}
        save_file(held, self.folder / name, metadata={"format": "pt"})


# --- encoders ------------------------------------------------------------------------------------


def _unigram(folder: Path, texts: list[str], size: int) -> None:
    """XLM-R's SentencePiece file and the `tokenizer.json` made of it."""
    with (folder / "sentencepiece.bpe.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=file, vocab_size=size, model_type="unigram",
            hard_vocab_limit=False, character_coverage=0.9995, minloglevel=2, num_threads=1,
        )  # fmt: skip
    transformers.XLMRobertaTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(folder)
    for extra in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / extra).unlink(missing_ok=True)


def _wordpiece(folder: Path, texts: list[str], size: int) -> None:
    trained = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    trained.train_from_iterator(iter(texts), vocab_size=size, show_progress=False)
    trained.save_model(str(folder))
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    for extra in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / extra).unlink(missing_ok=True)


def _vocabulary(folder: Path) -> int:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    return len(tokenizer)


def _sizes(vocabulary: int, positions: int) -> dict[str, Any]:
    return {"vocab_size": vocabulary, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "intermediate_size": 64, "max_position_embeddings": positions}  # fmt: skip


def _spread(model: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights that all differ from what a fresh model would have, LayerNorm's and biases included."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        base = weight.data if weight.dim() == 1 else weight.data * 8
        weight.data = base + 0.05 * torch.randn(weight.shape, generator=generator)
    return dict(model.state_dict())


def xlm_roberta(root: Path) -> None:
    """FacebookAI/xlm-roberta-base: a masked language model, `roberta.` before its weights, no pooler."""
    repo = Repo(root, "models", "FacebookAI/xlm-roberta-base", XLMR)
    _unigram(repo.folder, texts(), PIECES)
    size = _vocabulary(repo.folder)
    config = transformers.XLMRobertaConfig(
        **_sizes(size, 514),
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    weights = _spread(transformers.XLMRobertaForMaskedLM(config), 1)
    weights = {key: value for key, value in weights.items() if key != "lm_head.decoder.weight"}
    weights.pop("lm_head.decoder.bias", None)
    weights["roberta.embeddings.position_ids"] = torch.arange(514)[None]
    repo.weights(weights)
    repo.pickled({key: torch.zeros_like(value) for key, value in weights.items()})
    told = {"architectures": ["XLMRobertaForMaskedLM"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
            "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
            "layer_norm_eps": 1e-05, "model_type": "xlm-roberta", "output_past": True, "pad_token_id": 1,
            "position_embedding_type": "absolute", "transformers_version": "4.17.0.dev0", "type_vocab_size": 1,
            "use_cache": True, **_sizes(size, 514)}  # fmt: skip
    repo.json(config=told, tokenizer_config={"model_max_length": 512}, onnx__config=told)
    repo.text("README.md", "---\nlicense: mit\n---\n")
    repo.text("onnx/model.onnx", "not loaded")


def mbert(root: Path) -> None:
    """google-bert/bert-base-multilingual-cased: `bert.` before its weights, `gamma` and `beta` in LayerNorms."""
    repo = Repo(root, "models", "google-bert/bert-base-multilingual-cased", MBERT)
    _wordpiece(repo.folder, texts(), PIECES)
    size = _vocabulary(repo.folder)
    weights = _spread(transformers.BertForPreTraining(transformers.BertConfig(**_sizes(size, 512))), 2)
    kept = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in weights.items()
        if not key.startswith("cls.predictions.decoder")
    }
    repo.weights(kept)
    repo.pickled({key: torch.zeros_like(value) for key, value in kept.items()})
    told = {"architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "directionality": "bidi",
            "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
            "model_type": "bert", "pad_token_id": 0, "pooler_fc_size": 768, "pooler_type": "first_token_transform",
            "type_vocab_size": 2, **_sizes(size, 512)}  # fmt: skip
    repo.json(config=told, tokenizer_config={"do_lower_case": False, "model_max_length": 512})


_POOLING = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False}  # fmt: skip


def _modules(*names: str) -> list[dict[str, Any]]:
    return [
        {"idx": number, "name": str(number), "path": f"{number}_{name}" if number else "",
         "type": f"sentence_transformers.models.{name}"}
        for number, name in enumerate(names)
    ]  # fmt: skip


def labse(root: Path) -> None:
    """sentence-transformers/LaBSE: the first token's vector, a dense layer with tanh, unit length."""
    repo = Repo(root, "models", "sentence-transformers/LaBSE", LABSE)
    _wordpiece(repo.folder, texts(), PIECES)
    size = _vocabulary(repo.folder)
    weights = _spread(transformers.BertModel(transformers.BertConfig(**_sizes(size, 512))), 3)
    weights["embeddings.position_ids"] = torch.arange(512)[None]
    repo.weights(weights)
    repo.pickled(weights)
    dense = _spread(torch.nn.Linear(WIDTH, WIDTH), 4)
    dense = {f"linear.{key}": value for key, value in dense.items()}
    (repo.folder / "2_Dense").mkdir()
    repo.weights(dense, "2_Dense/model.safetensors")
    repo.pickled(dense, "2_Dense/pytorch_model.bin")
    told = {"_name_or_path": "/root/.cache/torch/sentence_transformers/sentence-transformers_LaBSE/",
            "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "directionality": "bidi",
            "gradient_checkpointing": False, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
            "initializer_range": 0.02, "layer_norm_eps": 1e-12, "model_type": "bert", "pad_token_id": 0,
            "position_embedding_type": "absolute", "transformers_version": "4.7.0", "type_vocab_size": 2,
            "use_cache": True, **_sizes(size, 512)}  # fmt: skip
    repo.json(
        config=told,
        modules=_modules("Transformer", "Pooling", "Dense", "Normalize"),
        sentence_bert_config={"max_seq_length": 256, "do_lower_case": False},
        config_sentence_transformers={
            "__version__": {
                "sentence_transformers": "2.0.0",
                "transformers": "4.7.0",
                "pytorch": "1.9.0+cu102",
            }
        },
        tokenizer_config={
            "do_lower_case": False,
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
            "tokenize_chinese_chars": True,
            "strip_accents": None,
            "full_tokenizer_file": None,
        },
        special_tokens_map={
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
    )
    repo.json(**{
        "1_Pooling__config": {"word_embedding_dimension": WIDTH, **_POOLING, "pooling_mode_cls_token": True},
        "2_Dense__config": {"in_features": WIDTH, "out_features": WIDTH, "bias": True,
                            "activation_function": "torch.nn.modules.activation.Tanh"},
    })  # fmt: skip


def e5(root: Path) -> None:
    """intfloat/multilingual-e5-small: BERT's weights, XLM-R's tokenizer, no prompts in the folder."""
    repo = Repo(root, "models", "intfloat/multilingual-e5-small", E5)
    _unigram(repo.folder, texts(), PIECES)
    size = _vocabulary(repo.folder)
    weights = _spread(transformers.BertModel(transformers.BertConfig(**_sizes(size, 512))), 5)
    repo.weights(weights)
    told = {"architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1, "layer_norm_eps": 1e-12, "model_type": "bert", "pad_token_id": 0,
            "position_embedding_type": "absolute", "tokenizer_class": "XLMRobertaTokenizer", "type_vocab_size": 2,
            **_sizes(size, 512)}  # fmt: skip
    repo.json(
        config=told,
        modules=_modules("Transformer", "Pooling", "Normalize"),
        sentence_bert_config={"max_seq_length": 512, "do_lower_case": False},
        tokenizer_config={
            "model_max_length": 512,
            "tokenizer_class": "XLMRobertaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "sep_token": "</s>",
            "cls_token": "<s>",
            "pad_token": "<pad>",
            "sp_model_kwargs": {},
        },
        special_tokens_map={
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
        },
        **{
            "1_Pooling__config": {
                "word_embedding_dimension": WIDTH,
                **_POOLING,
                "pooling_mode_mean_tokens": True,
            }
        },
    )


def modern(root: Path) -> None:
    """jhu-clsp/mmBERT-base: a newer architecture that transformers has code for."""
    repo = Repo(root, "models", "jhu-clsp/mmBERT-base", ONE)
    _unigram(repo.folder, texts(), PIECES)
    size = _vocabulary(repo.folder)
    config = transformers.ModernBertConfig(
        **_sizes(size, 8192), pad_token_id=1, bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2
    )
    repo.weights({k: v for k, v in _spread(transformers.ModernBertForMaskedLM(config), 6).items()
                  if k != "decoder.weight"})  # fmt: skip
    told = {**config.to_dict(), "architectures": ["ModernBertForMaskedLM"]}
    repo.json(config=told, tokenizer_config={
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192, "bos_token": "<s>",
        "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>",
        "mask_token": "<mask>"})  # fmt: skip


def qwen(root: Path) -> None:
    """Qwen/Qwen3-Embedding-0.6B: a decoder, padded on the left, its last token's vector, prompts."""
    repo = Repo(root, "models", "Qwen/Qwen3-Embedding-0.6B", ONE)
    _unigram(repo.folder, texts(), PIECES)
    (repo.folder / "sentencepiece.bpe.model").unlink()
    size = _vocabulary(repo.folder)
    config = transformers.Qwen3Config(
        vocab_size=size, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=2, head_dim=8, intermediate_size=64, max_position_embeddings=32768, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    weights = _spread(transformers.Qwen3Model(config), 7)
    repo.weights({key: value.to(torch.bfloat16) for key, value in weights.items()})
    repo.json(
        config={**config.to_dict(), "architectures": ["Qwen3ForCausalLM"], "torch_dtype": "bfloat16", "dtype": None},
        modules=_modules("Transformer", "Pooling", "Normalize"),
        config_sentence_transformers={
            "prompts": {"query": "Instruct: Given a web search query\nQuery:", "document": ""},
            "default_prompt_name": None, "similarity_fn_name": "cosine",
        },
        tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left", "bos_token": "<s>",
                          "model_max_length": 131072, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        **{"1_Pooling__config": {"word_embedding_dimension": WIDTH, **_POOLING, "pooling_mode_lasttoken": True,
                                 "include_prompt": True}},
    )  # fmt: skip


def _pooling(mode: str) -> dict[str, Any]:
    return {
        "1_Pooling__config": {"word_embedding_dimension": WIDTH, **_POOLING, f"pooling_mode_{mode}": True}
    }


def gte(root: Path) -> None:
    """Alibaba-NLP/gte-multilingual-base: its `auto_map` names code of another repository."""
    repo = Repo(root, "models", "Alibaba-NLP/gte-multilingual-base", ONE)
    repo.weights({"new.embeddings.word_embeddings.weight": torch.zeros(8, WIDTH)})
    repo.json(
        config={
            "architectures": ["NewModel", "NewForTokenClassification"],
            "model_type": "new",
            "hidden_size": WIDTH,
            "auto_map": {
                "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
                "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel",
            },
        },
        modules=_modules("Transformer", "Pooling", "Normalize"),
        sentence_bert_config={"max_seq_length": 8192, "do_lower_case": False},
        tokenizer_config={"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 32768},
        **_pooling("cls_token"),
    )


def jina(root: Path) -> None:
    """jinaai/jina-embeddings-v3: code of another repository by `auto_map`, code of its own by a module's type."""
    repo = Repo(root, "models", "jinaai/jina-embeddings-v3", ONE)
    repo.weights({"roberta.embeddings.word_embeddings.weight": torch.zeros(8, WIDTH)})
    repo.text("custom_st.py", "raise SystemExit('remote code was run')\n")
    code = "jinaai/xlm-roberta-flash-implementation--"
    repo.json(
        config={
            "architectures": ["XLMRobertaModel"],
            "model_type": "xlm-roberta",
            "hidden_size": WIDTH,
            "auto_map": {
                "AutoConfig": f"{code}configuration_xlm_roberta.XLMRobertaFlashConfig",
                "AutoModel": f"{code}modeling_lora.XLMRobertaLoRA",
            },
        },
        modules=[
            {
                "idx": 0,
                "name": "transformer",
                "path": "",
                "type": "custom_st.Transformer",
                "kwargs": ["task"],
            },
            *_modules("Transformer", "Pooling", "Normalize")[1:],
        ],
        tokenizer_config={"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 8194},
        **_pooling("mean_tokens"),
    )


def _own_code(folder: Path) -> None:
    for file in ("configuration_own.py", "modeling_own.py"):
        (folder / file).write_text("raise SystemExit('remote code was run')\n")


def remote(root: Path, name: str = "own/remote", prefix: str = "") -> Repo:
    """A plain encoder, without modules.json, whose code is in its own folder."""
    repo = Repo(root, "models", name, ONE)
    repo.weights({"x": torch.zeros(8, WIDTH)})
    names = {
        "AutoConfig": f"{prefix}configuration_own.OwnConfig",
        "AutoModel": f"{prefix}modeling_own.OwnModel",
    }
    repo.json(config={"architectures": ["OwnModel"], "model_type": "own", "auto_map": names})
    if not prefix:
        _own_code(repo.folder)
    return repo


def remote_elsewhere(root: Path) -> None:
    """A plain encoder whose code is in another repository."""
    remote(root, "own/remote-elsewhere", "own/code--")
    _own_code(Repo(root, "models", "own/code", ONE).folder)


def _like(root: Path, name: str, commit: str, new: str) -> Repo:
    """Start a repository with all the files of another."""
    make(root, name)
    repo = Repo(root, "models", new, ONE)
    shutil.copytree(root / "models" / name / commit, repo.folder, dirs_exist_ok=True)
    return repo


def pickled(root: Path) -> None:
    repo = _like(root, "FacebookAI/xlm-roberta-base", XLMR, "own/pickled")
    repo.pickled(load_file(repo.folder / "model.safetensors"))
    (repo.folder / "model.safetensors").unlink()


def lacking(root: Path) -> None:
    """A layer's weights are not there."""
    repo = _like(root, "FacebookAI/xlm-roberta-base", XLMR, "own/lacking")
    weights = load_file(repo.folder / "model.safetensors")
    repo.weights({key: value for key, value in weights.items() if ".layer.1.attention" not in key})


def dense_pickled(root: Path) -> None:
    """LaBSE as it was before its dense layer came as safetensors."""
    repo = _like(root, "sentence-transformers/LaBSE", LABSE, "own/dense-pickled")
    (repo.folder / "2_Dense" / "model.safetensors").unlink()


def half(root: Path) -> None:
    """intfloat/multilingual-e5-large-instruct is stored in half precision."""
    repo = _like(root, "intfloat/multilingual-e5-small", E5, "intfloat/multilingual-e5-large-instruct")
    weights = load_file(repo.folder / "model.safetensors")
    repo.weights(
        {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    )
    config = json.loads((repo.folder / "config.json").read_text())
    repo.json(config={**config, "torch_dtype": "float16"})


def no_length(root: Path) -> None:
    """XLM-R without a stated length: it has 514 positions, of which a text can use 512."""
    repo = _like(root, "FacebookAI/xlm-roberta-base", XLMR, "own/no-length")
    (repo.folder / "tokenizer_config.json").unlink()


# --- translation models ----------------------------------------------------------------------------


def in_scratch(build: Callable[[Path, Path], None]) -> Callable[[Path], None]:
    """Give a builder a folder of its own, which is gone when it has published what it wants to."""

    def run(root: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            build(root, Path(scratch))

    return run


_SIZES = {f"{side}_{what}": number for side in ("encoder", "decoder") for what, number in
          (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))}  # fmt: skip
_SIZES |= {"d_model": 32, "dropout": 0.0, "attention_dropout": 0.0, "max_position_embeddings": 256,
           "scale_embedding": True}  # fmt: skip


def _spm(folder: Path, name: str, texts: list[str], kind: str, size: int) -> list[str]:
    with (folder / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=file, vocab_size=size, model_type=kind,
            hard_vocab_limit=False, minloglevel=2, num_threads=1,
        )  # fmt: skip
    read = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
    return [read.id_to_piece(number) for number in range(3, read.get_piece_size())]


def _publish(root: Path, folder: Path, name: str, model: Any) -> None:
    """Give main pickled weights and a pull request the same as safetensors, as the real ones have it."""
    model.save_pretrained(folder)
    files = [file for file in folder.iterdir() if file.suffix != ".safetensors"]
    weights = {**load_file(folder / "model.safetensors")}
    for ref, commit in {"main": ONE, "refs/pr/45": TWO}.items():
        repo = Repo(root, "models", name, commit, **{ref: commit})
        for file in files:
            shutil.copy(file, repo.folder / file.name)
        repo.pickled(weights)
        if commit == TWO:
            repo.weights(weights)


def m2m100(root: Path, folder: Path) -> None:
    """facebook/m2m100_418M: `vocab.json` beside SentencePiece, a token for each language."""
    held = _spm(folder, "sentencepiece.bpe.model", texts("en", "de", "es"), "bpe", PIECES)
    names = ["<s>", "<pad>", "</s>", "<unk>", *held]
    write_json(folder / "vocab.json", {name: number for number, name in enumerate(dict.fromkeys(names))})
    write_json(folder / "tokenizer_config.json", {
        "src_lang": None, "tgt_lang": None, "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
        "unk_token": "<unk>", "pad_token": "<pad>", "model_max_length": 1024, "language_codes": "m2m100",
        "num_madeup_words": 8, "special_tokens_map_file": "m2m_100_1.2B_v2/special_tokens_map.json",
        "tokenizer_class": "M2M100Tokenizer"})  # fmt: skip
    config = transformers.M2M100Config(vocab_size=len(set(names)) + 108, max_length=200, **_SIZES)
    _publish(root, folder, "facebook/m2m100_418M", transformers.M2M100ForConditionalGeneration(config))


def nllb(root: Path, folder: Path) -> None:
    """facebook/nllb-200-distilled-600M: `tokenizer.json`, languages as added tokens."""
    _spm(folder, "sentencepiece.bpe.model", texts("en", "de", "es"), "bpe", PIECES)
    codes = ["eng_Latn", "deu_Latn", "spa_Latn", "zho_Hans", "zho_Hant"]
    tokenizer = transformers.NllbTokenizer.from_pretrained(folder, extra_special_tokens=codes)
    tokenizer.save_pretrained(folder)
    mask = {"content": "<mask>", "lstrip": True, "normalized": True, "rstrip": False, "single_word": False}
    names = {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
    }
    write_json(
        folder / "special_tokens_map.json", {"additional_special_tokens": codes, "mask_token": mask, **names}
    )
    write_json(folder / "tokenizer_config.json", {
        "mask_token": {"__type": "AddedToken", **mask}, "name_or_path": "facebook/nllb-200-distilled-600M",
        "sp_model_kwargs": {}, "special_tokens_map_file": None, "tokenizer_class": "NllbTokenizer", **names,
    })  # fmt: skip
    config = transformers.M2M100Config(vocab_size=len(tokenizer), max_length=200, **_SIZES)
    model = transformers.M2M100ForConditionalGeneration(config)
    _publish(root, folder, "facebook/nllb-200-distilled-600M", model)


def marian(root: Path, folder: Path) -> None:
    """Helsinki-NLP/opus-mt-en-de: two SentencePiece files, one vocabulary, no mark."""
    both = [*_spm(folder, "source.spm", texts("en"), "unigram", 300),
            *_spm(folder, "target.spm", texts("de"), "unigram", 300)]  # fmt: skip
    names = list(dict.fromkeys(["</s>", "<unk>", *both, "<pad>"]))
    write_json(folder / "vocab.json", {name: number for number, name in enumerate(names)})
    write_json(folder / "tokenizer_config.json", {"target_lang": "de", "source_lang": "en"})
    pad = len(names) - 1
    config = transformers.MarianConfig(
        vocab_size=len(names), pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=0, forced_eos_token_id=0,
        **_SIZES,
    )  # fmt: skip
    model = transformers.MarianMTModel(config)
    model.generation_config.bad_words_ids = [[pad]]
    _publish(root, folder, "Helsinki-NLP/opus-mt-en-de", model)


# --- datasets --------------------------------------------------------------------------------------


def _parquet(repo: Repo, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    path = repo.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=8)


def _fields(**kinds: pa.DataType) -> pa.Schema:
    return pa.schema(list(kinds.items()))


_TEXT, _INT = pa.string(), pa.int64()


def _card(repo: Repo, config: str, features: str, files: Mapping[str, str]) -> None:
    """A README as `push_to_hub` writes it; without `files` it names no data files."""
    lines = ["---", "license: cc-by-sa-4.0", "dataset_info:"]
    lines += [f"  config_name: {config}"] if config != "default" else []
    lines += ["  features:", *(f"  {line}" for line in features.strip("\n").splitlines())]
    if files:
        lines += ["configs:", f"- config_name: {config}", "  data_files:"]
        for split, path in files.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    repo.text("README.md", "\n".join([*lines, "---", "", "# Data set", ""]))


def _corpus(root: Path, preset: str) -> Repo:
    """Open the repository of a preset's corpus at the commit that the preset pins."""
    corpus = load_presets()[preset]
    return Repo(root, "datasets", corpus.hub, corpus.revision)


def _english() -> list[dict[str, Any]]:
    return sample("en")[:ROWS]


def squad(root: Path) -> None:
    rows, squad = _english(), _corpus(root, "squad")
    answers = pa.struct([("text", pa.list_(_TEXT)), ("answer_start", pa.list_(pa.int32()))])
    schema = _fields(id=_TEXT, title=_TEXT, context=_TEXT, question=_TEXT, answers=answers)
    for split in ("train", "validation"):
        held = [
            {"id": f"{number:024x}", "title": "A", "context": row["passage"], "question": row["question"],
             "answers": {"text": [row["answer"]], "answer_start": [row["passage"].find(row["answer"])]}}
            for number, row in enumerate(rows)
        ]  # fmt: skip
        _parquet(squad, f"plain_text/{split}-00000-of-00001.parquet", held, schema)
    _card(squad, "plain_text", "- name: id\n  dtype: string\n- name: title\n  dtype: string\n- name: context\n"
          "  dtype: string\n- name: question\n  dtype: string\n- name: answers\n  sequence:\n  - name: text\n"
          "    dtype: string\n  - name: answer_start\n    dtype: int32",
          {split: f"plain_text/{split}-*" for split in ("train", "validation")})  # fmt: skip


def natural_questions(root: Path) -> None:
    rows, questions = _english(), _corpus(root, "natural-questions")
    held = [{"query": row["question"], "answer": row["passage"]} for row in rows]
    _parquet(questions, "pair/train-00000-of-00001.parquet", held, _fields(query=_TEXT, answer=_TEXT))
    _card(questions, "pair", "- name: query\n  dtype: string\n- name: answer\n  dtype: string",
          {"train": "pair/train-*"})  # fmt: skip


def yahoo_qa(root: Path) -> None:
    rows, yahoo = _english(), _corpus(root, "yahoo-qa")
    held = [{"question": row["question"], "answer": row["passage"]} for row in rows]
    schema = _fields(question=_TEXT, answer=_TEXT)
    _parquet(yahoo, "question-answer-pair/train-00000-of-00001.parquet", held, schema)
    _card(yahoo, "question-answer-pair", "- name: question\n  dtype: string\n- name: answer\n  dtype: string",
          {"train": "question-answer-pair/train-*"})  # fmt: skip


def wikiqa(root: Path) -> None:
    rows, wiki = _english(), _corpus(root, "wikiqa")
    held = [
        {"question_id": f"Q{number}", "question": row["question"], "document_title": "A", "answer": answer,
         "label": label}
        for number, row in enumerate(rows)
        for label, answer in ((0, "No."), (1, row["passage"]))
    ]  # fmt: skip
    schema = _fields(question_id=_TEXT, question=_TEXT, document_title=_TEXT, answer=_TEXT, label=_INT)
    for split in ("test", "validation", "train"):
        _parquet(wiki, f"data/{split}-00000-of-00001.parquet", held, schema)
    _card(wiki, "default", "- name: question_id\n  dtype: string\n- name: question\n  dtype: string\n"
          "- name: document_title\n  dtype: string\n- name: answer\n  dtype: string\n- name: label\n  dtype:\n"
          "    class_label:\n      names:\n        '0': '0'\n        '1': '1'",
          {split: f"data/{split}-*" for split in ("test", "validation", "train")})  # fmt: skip


def newsqa(root: Path) -> None:
    rows, news = _english(), _corpus(root, "newsqa")
    spans = pa.list_(pa.struct([("end", pa.list_(_INT)), ("start", pa.list_(_INT))]))
    held = [
        {"context": row["passage"], "question": row["question"], "answers": [row["answer"]], "key": f"{number:032x}",
         "labels": [{"end": [4], "start": [0]}]}
        for number, row in enumerate(rows)
    ]  # fmt: skip
    schema = _fields(context=_TEXT, question=_TEXT, answers=pa.list_(_TEXT), key=_TEXT, labels=spans)
    for split in ("train", "validation"):
        _parquet(news, f"data/{split}-00000-of-00001-ec54fbe500fc3b5c.parquet", held, schema)
    _card(news, "default", "- name: context\n  dtype: string\n- name: question\n  dtype: string\n- name: answers\n"
          "  sequence: string\n- name: key\n  dtype: string\n- name: labels\n  list:\n  - name: end\n"
          "    sequence: int64\n  - name: start\n    sequence: int64", {})  # fmt: skip


def duorc(root: Path) -> None:
    rows, duorc = _english(), _corpus(root, "duorc")
    schema = _fields(plot_id=_TEXT, plot=_TEXT, title=_TEXT, question_id=_TEXT, question=_TEXT,
                     answers=pa.list_(_TEXT), no_answer=pa.bool_())  # fmt: skip
    for config in ("ParaphraseRC", "SelfRC"):
        held = [
            {"plot_id": f"/m/{number}", "plot": row["passage"], "title": "A", "question_id": f"a-{number}",
             "question": row["question"], "answers": [] if number == 3 else [row["answer"]],
             "no_answer": number == 3}
            for number, row in enumerate(rows)
        ]  # fmt: skip
        for split in ("train", "validation", "test"):
            _parquet(duorc, f"{config}/{split}-00000-of-00001.parquet", held, schema)
    features = "".join(f"  - name: {name}\n    dtype: string\n" for name in schema.names[:5])
    features += "  - name: answers\n    sequence: string\n  - name: no_answer\n    dtype: bool\n"
    infos = "".join(
        f"- config_name: {config}\n  features:\n{features}" for config in ("ParaphraseRC", "SelfRC")
    )
    files = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(
            f"  - split: {split}\n    path: {config}/{split}-*\n" for split in ("train", "validation", "test")
        )
        for config in ("ParaphraseRC", "SelfRC")
    )
    duorc.text("README.md", f"---\nlicense: mit\ndataset_info:\n{infos}configs:\n{files}---\n")


def mr_tydi(root: Path) -> None:
    """The hub's own conversion, which has no README."""
    rows, tydi = _english(), _corpus(root, "mr-tydi-en")
    passage = pa.list_(pa.struct([("docid", _TEXT), ("text", _TEXT), ("title", _TEXT)]))
    schema = _fields(query_id=_TEXT, query=_TEXT, positive_passages=passage, negative_passages=passage)
    for lang in ("english", "finnish"):
        for split in ("train", "dev", "test"):
            held = [
                {"query_id": str(number), "query": row["question"],
                 "positive_passages": [{"docid": f"{number}#0", "text": row["passage"], "title": "A"}],
                 "negative_passages": [{"docid": f"9{number}#{place}", "text": other["passage"], "title": "B"}
                                       for place, other in enumerate(rows[:3]) if other is not row]}
                for number, row in enumerate(rows)
            ]  # fmt: skip
            _parquet(tydi, f"{lang}/mr-tydi-{split}.parquet", held, schema)


def mfaq(root: Path) -> None:
    """The hub's own conversion, which has no README."""
    rows, mfaq = _english(), _corpus(root, "mfaq")
    schema = _fields(domain_id=_INT, pair_id=_INT, language=_TEXT, domain=_TEXT, question=_TEXT, answer=_TEXT)
    for config in ("en_flat", "de_flat"):
        for split, shards in (("train", 2), ("validation", 1)):
            for shard in range(shards):
                held = [
                    {"domain_id": 1, "pair_id": number, "language": "en", "domain": "example.org",
                     "question": row["question"], "answer": row["passage"]}
                    for number, row in enumerate(rows[shard::shards])
                ]  # fmt: skip
                end = f"-{shard:05d}-of-{shards:05d}" if shards > 1 else ""
                _parquet(mfaq, f"{config}/mfaq-{split}{end}.parquet", held, schema)


def nested(root: Path) -> None:
    """A column for each language, with columns in it."""
    rows = {lang: sample(lang)[:ROWS] for lang in ("en", "de", "es")}
    nested = Repo(root, "datasets", "own/nested", ONE)
    part = pa.struct([("question", _TEXT), ("passage", _TEXT)])
    schema = _fields(id=_INT, texts=pa.struct([(lang, part) for lang in rows]))
    held = [
        {
            "id": number,
            "texts": {lang: {k: rows[lang][number][k] for k in ("question", "passage")} for lang in rows},
        }
        for number in range(ROWS)
    ]
    _parquet(nested, "data/train-00000-of-00001.parquet", held, schema)


def lines(root: Path) -> None:
    lines = Repo(root, "datasets", "own/lines", ONE)
    lines.text("train.jsonl", "".join(
        json.dumps({"q": row["question"], "body": {"text": row["passage"]}, "kind": "good" if i % 2 else "bad"}) + "\n"
        for i, row in enumerate(_english())))  # fmt: skip


def script(root: Path) -> None:
    """A dataset that only a script of its own could read."""
    script = Repo(root, "datasets", "own/script", ONE)
    script.text("script.py", "raise SystemExit('remote code was run')\n")
    script.text("README.md", "---\nlicense: mit\n---\n")


def miracl(root: Path, preset: str = "miracl", langs: tuple[str, ...] = ("yo", "sw")) -> None:
    """MTEB's mirrors: Parquet by language, of the development split, with as many passages as Recall@100 needs."""
    known, ids = PRESETS[preset], "_id"
    repo = Repo(root, "datasets", known.hub, known.revision)
    for lang in langs:
        rows = sample("en")[100:220]
        docs = [{ids: f"{n}#0", "title": f"T{n}", "text": row["passage"]} for n, row in enumerate(rows)]
        asked = [{ids: str(n), "text": row["question"]} for n, row in enumerate(rows[:20])]
        judged = [{"query-id": str(n), "corpus-id": f"{n}#0", "score": 1} for n in range(20)]
        judged += [{"query-id": str(n), "corpus-id": f"{n + 60}#0", "score": 0} for n in range(20)]
        text = _fields(**{ids: _TEXT, "title": _TEXT, "text": _TEXT})
        for shard in range(2):
            _parquet(repo, f"{lang}-corpus/dev-{shard:05d}-of-00002.parquet", docs[shard * 60 :][:60], text)
        _parquet(
            repo,
            f"{lang}-queries/dev-00000-of-00001.parquet",
            asked,
            _fields(**{ids: _TEXT, "text": _TEXT}),
        )
        kinds = {"query-id": _TEXT, "corpus-id": _TEXT, "score": _INT}
        _parquet(repo, f"{lang}-qrels/dev-00000-of-00001.parquet", judged, _fields(**kinds))
    _card(repo, f"{langs[0]}-corpus", "- name: _id\n  dtype: string", {"dev": f"{langs[0]}-corpus/dev-*"})


def lareqa(root: Path) -> None:
    repo = Repo(root, "datasets", "own/lareqa", ONE)
    for file in sorted((SAMPLE / "benchmark").glob("??.json")):
        shutil.copy(file, repo.folder / file.name)


# --- building ------------------------------------------------------------------------------------

BUILDERS: dict[str, Callable[[Path], None]] = {
    "FacebookAI/xlm-roberta-base": xlm_roberta,
    "google-bert/bert-base-multilingual-cased": mbert,
    "sentence-transformers/LaBSE": labse,
    "intfloat/multilingual-e5-small": e5,
    "jhu-clsp/mmBERT-base": modern,
    "Qwen/Qwen3-Embedding-0.6B": qwen,
    "Alibaba-NLP/gte-multilingual-base": gte,
    "jinaai/jina-embeddings-v3": jina,
    "own/remote": remote,
    "own/remote-elsewhere": remote_elsewhere,
    "own/pickled": pickled,
    "own/lacking": lacking,
    "own/dense-pickled": dense_pickled,
    "intfloat/multilingual-e5-large-instruct": half,
    "own/no-length": no_length,
    "facebook/m2m100_418M": in_scratch(m2m100),
    "facebook/nllb-200-distilled-600M": in_scratch(nllb),
    "Helsinki-NLP/opus-mt-en-de": in_scratch(marian),
    "rajpurkar/squad": squad,
    "sentence-transformers/natural-questions": natural_questions,
    "sentence-transformers/yahoo-answers": yahoo_qa,
    "microsoft/wiki_qa": wikiqa,
    "lucadiliello/newsqa": newsqa,
    "ibm-research/duorc": duorc,
    "castorini/mr-tydi": mr_tydi,
    "clips/mfaq": mfaq,
    "own/nested": nested,
    "own/lines": lines,
    "own/script": script,
    "mteb/MIRACLRetrieval": miracl,
    "mteb/MIRACLRetrievalHardNegatives": functools.partial(miracl, preset="miracl-hard"),
    "own/lareqa": lareqa,
}


@functools.cache
def make(root: Path, name: str) -> Path:
    """Build a repository once, the same each time; return its folder, in which each commit has a folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for models this small, waiting for each other takes most of the time
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        BUILDERS[name](root)
    torch.set_num_threads(threads)
    return next(root.glob(f"*/{name}"))
