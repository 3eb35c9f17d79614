"""Machine translation by transformers models, in fp32: the best beam, greedy with one beam, never sampled."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from hexapla.data.translate import passages
from hexapla.data.translate.batching import translated
from hexapla.data.translate.families import Target
from hexapla.data.translate.pretrained import load_weights, open_checkpoint


class Machine:
    """OPUS-MT, M2M-100, NLLB-200 or MADLAD-400 by transformers; the weights come with the first text."""

    def __init__(self, model: str, *, batch_tokens: int, beams: int) -> None:
        """Raises as `pretrained.open_checkpoint`."""
        self._checkpoint = open_checkpoint(model)
        self.name = f"transformers:{self._checkpoint.name}"
        self._batch_tokens, self._beams = batch_tokens, beams

    def identity(self, lang: str) -> str:
        """Without `batch_tokens`: padding changes last digits at most."""
        settings = f"beams={self._beams} fp32 {passages.rules()}"
        return f"transformers {self._checkpoint.identity} {lang} {settings}"

    def check(self, languages: Sequence[str]) -> None:
        self._checkpoint.check(languages)

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        return translated(self._checkpoint, texts, lang, self._batch_tokens, self._generate)

    @cached_property
    def _model(self) -> Any:
        import accelerate

        return load_weights(self._checkpoint).to(accelerate.PartialState().device)

    def _generate(self, batch: list[list[int]], most: int, target: Target) -> list[list[int]]:
        import torch

        rows = [torch.tensor(ids) for ids in batch]
        pad = torch.nn.utils.rnn.pad_sequence
        choice = {} if target.token is None else {"forced_bos_token_id": target.token}
        tokenizer, device = self._checkpoint.tokenizer, self._model.device
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=pad(rows, True, tokenizer.pad_token_id).to(device),
                attention_mask=pad([torch.ones_like(row) for row in rows], True).to(device),
                max_new_tokens=most,
                num_beams=self._beams,
                do_sample=False,
                **choice,
            )
        end = tokenizer.eos_token_id
        written = [row[1:].tolist() for row in out]
        return [ids[: ids.index(end)] if end in ids else ids for ids in written]
