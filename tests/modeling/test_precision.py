import numpy as np
import pytest
import torch

from hexapla.modeling import encoder, precision
from hexapla.modeling.precision import evaluating, forward_of, measured_precision, resolved_precision
from hexapla.modeling.tokenization import pieces
from hexapla.schema import UserError

PROMPTS = {"query": "ask: ", "passage": "text: "}
TEXTS = ["Wer malte die Nachtwache?", "谁画了夜巡？", "Rembrandt"]


@pytest.fixture
def tiny(tiny_folder):
    return encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")


def test_bf16_is_close_and_leaves_the_encoder_as_it_is(tiny):
    before = {name: weight.clone() for name, weight in tiny.model.state_dict().items()}
    made = pieces(tiny, TEXTS, "query", 32)
    full, half = (forward_of(tiny, TEXTS, "query", 32, kind)(made) for kind in ("fp32", "bf16"))
    assert full.dtype == half.dtype == np.float32
    assert (full != half).any()
    assert (full * half).sum(axis=1) == pytest.approx(1, abs=2e-3)
    assert np.linalg.norm(half, axis=1) == pytest.approx(1, abs=1e-5)
    for name, weight in tiny.model.state_dict().items():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])


def test_what_is_wanted_is_taken_and_auto_is_measured(tiny, monkeypatch):
    assert resolved_precision(tiny, "fp32") == "fp32"
    assert resolved_precision(tiny, "bf16") == "bf16"
    for ratio, chosen in ((1.29, "fp32"), (1.31, "bf16"), (float("nan"), "fp32")):
        monkeypatch.setattr(precision, "_times_as_fast", lambda *a, r=ratio: r)
        assert resolved_precision(tiny, "auto") == chosen
    with pytest.raises(UserError, match="'fp8' is unknown; choose auto, fp32 or bf16"):
        resolved_precision(tiny, "fp8")


def test_measuring_changes_neither_threads_nor_mode(tiny):
    tiny.model.train()
    threads = torch.get_num_threads()
    assert measured_precision(tiny) in ("fp32", "bf16")
    assert torch.get_num_threads() == threads
    assert tiny.model.training


def test_the_faster_one_of_two_is_told_by_the_median():
    clock, calls = [0.0], []

    def taking(seconds):
        def forward(batch):
            calls.append(seconds)
            clock[0] += seconds * (50 if len(calls) == 2 else 1)
            return np.zeros((1, 2), np.float32)

        return forward

    assert precision._times_as_fast(taking(0.1), taking(0.3), [], lambda: clock[0]) == pytest.approx(3)
    assert len(calls) >= 6


def test_vectors_that_are_not_alike_or_no_kernel_mean_fp32(tiny, monkeypatch):
    monkeypatch.setattr(precision, "_times_as_fast", lambda *a: 9.0)
    assert measured_precision(tiny) == "bf16"
    real = precision.forward_of

    def spoilt(*args):
        return (lambda batch: -real(*args)(batch)) if args[-1] == "bf16" else real(*args)

    def missing(*args):
        def forward(batch):
            raise RuntimeError("not implemented for 'BFloat16'")

        return forward if args[-1] == "bf16" else real(*args)

    for other in (spoilt, missing):
        monkeypatch.setattr(precision, "forward_of", other)
        assert measured_precision(tiny) == "fp32"


def test_an_encoder_that_feeds_itself_runs_in_fp32(tiny, monkeypatch):
    monkeypatch.setattr(precision, "extras", lambda *a: None)
    assert forward_of(tiny, TEXTS, "query", 32, "fp32") is None
    assert measured_precision(tiny) == "fp32"
    with pytest.raises(UserError, match="bf16 is not for this encoder"):
        forward_of(tiny, TEXTS, "query", 32, "bf16")


def test_the_mode_comes_back_after_an_error(tiny):
    tiny.model.train()
    with pytest.raises(KeyError), evaluating(tiny.model):
        assert not tiny.model.training
        raise KeyError
    assert tiny.model.training
