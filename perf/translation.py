"""How fast sentences are translated: CTranslate2 against transformers, Apertium's chains against its command.

    python perf/translation.py [models] [apertium] [--size 418m|small] [--sentences N] [--tokens N]

Models: the same M2M-100 with random weights, the same sentences and batches, greedy, and every
translation made to have `--tokens` tokens, so that all ways do the same work; one untimed batch before.
On a machine that others use as well, `--cpu-time` counts what the process computes, in one thread.
Apertium: how many sentences a second chains of live programs translate, and one call of the command a text.
"""

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import sentencepiece
import torch
import transformers

from hexapla.data.translate.apertium import Apertium
from hexapla.data.translate.ctranslate2_engine import CTranslate2Engine
from hexapla.data.translate.nmt import Target, TransformersEngine, cut_batches
from hexapla.io import cache, readers

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "pairs" / "en.jsonl"
VOCABULARY = 128112
SIZES = {"418m": (1024, 12, 16, 4096), "small": (256, 3, 4, 1024)}
"""Dimension, layers a side, heads, dimension of the feed-forward layers; of M2M-100's smallest, and tiny."""

Way = Callable[[list[list[int]], int, Target], list[list[int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["models", "apertium"])
    parser.add_argument("--size", choices=SIZES, default="418m")
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32, help="of every translation")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--compute", nargs="*", default=["fp32", "int8"])
    args = parser.parse_args()
    if args.cpu_time:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"
    logging.basicConfig(level=logging.WARNING)
    rows = (row for _, row in readers.read_rows(SAMPLE, "jsonl"))
    texts = [part for row in rows for part in re.split(r"(?<=[.!?]) ", row["passage"]) if part]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEXAPLA_CACHE"] = f"{folder}/cache"
        if "models" in args.parts:
            models(Path(folder), texts, args)
    if "apertium" in args.parts:
        apertium(list(dict.fromkeys(texts)))


# --- models ----------------------------------------------------------------------------------------


def random_model(folder: Path, texts: list[str], size: str) -> Path:
    """An M2M-100 in its own format: random weights, and a small tokenizer that knows the sentences."""
    width, layers, heads, inner = SIZES[size]
    with (folder / "sentencepiece.bpe.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=file, vocab_size=4000, model_type="bpe",
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    known = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    pieces = [known.id_to_piece(number) for number in range(3, known.get_piece_size())]
    names = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *pieces])
    cache.write_json(folder / "vocab.json", {name: number for number, name in enumerate(names)})
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in
             (("layers", layers), ("attention_heads", heads), ("ffn_dim", inner))}  # fmt: skip
    torch.manual_seed(0)
    config = transformers.M2M100Config(vocab_size=VOCABULARY, d_model=width, **sides)
    transformers.M2M100ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def models(folder: Path, texts: list[str], args: argparse.Namespace) -> None:
    transformers.utils.logging.disable_progress_bar()
    (folder / "model").mkdir()
    model = str(random_model(folder / "model", texts, args.size))
    machine = TransformersEngine(model, batch_tokens=args.batch_tokens, beams=1)
    opened = machine._opened
    target = opened.targets["de"]
    tokens = opened.encode(texts[: args.sentences], target)
    cut = [[tokens[place] for place in batch] for batch in cut_batches(tokens, args.batch_tokens)]
    mean = sum(map(len, tokens)) / len(tokens)
    print(f"M2M-100 {args.size}, {len(tokens)} sentences of {mean:.0f} tokens in, {args.tokens} out")
    clock = time.process_time if args.cpu_time else time.perf_counter
    machine._model.generation_config.min_new_tokens = args.tokens
    base = measured("transformers fp32", machine._generate, cut, target, args.tokens, clock)
    del machine.__dict__["_model"]
    for compute in args.compute:
        other = CTranslate2Engine(model, compute=compute, batch_tokens=args.batch_tokens, beams=1)
        translate = partial(other._translator.translate_batch, min_decoding_length=args.tokens)
        other.__dict__["_translator"] = SimpleNamespace(translate_batch=translate)
        rate = measured(f"ctranslate2 {compute}", other._generate, cut, target, args.tokens, clock)
        print(f"  {rate / base:.2f} times transformers")
        del other, translate


def measured(
    name: str, way: Way, cut: list[list[list[int]]], target: Target, length: int, clock: Callable[[], float]
) -> float:
    """Sentences a second."""
    way(cut[-1][:2], length, target)
    start = clock()
    written = [ids for batch in cut for ids in way(batch, length, target)]
    seconds = clock() - start
    lengths = {len(ids) for ids in written}
    print(f"{name}: {len(written) / seconds:.2f} sentences/s ({seconds:.1f} s; {lengths} tokens each)")
    return len(written) / seconds


# --- apertium --------------------------------------------------------------------------------------


def apertium(texts: list[str], calls: int = 30) -> None:
    engine = Apertium()
    engine.translate(texts[:64], "es")
    start = time.perf_counter()
    engine.translate(texts, "es")
    rate = len(texts) / (time.perf_counter() - start)
    engine.close()
    start = time.perf_counter()
    for text in texts[:calls]:
        command = ["apertium", "-u", "eng-spa"]
        subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    alone = calls / (time.perf_counter() - start)
    print(f"apertium: {rate:.0f} sentences/s; by a call a sentence {alone:.1f}/s; {rate / alone:.0f} times")


if __name__ == "__main__":
    sys.exit(main())
