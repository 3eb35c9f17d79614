import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hexapla.modeling import adapters, encoder
from hexapla.modeling.encoder import unit_vectors
from hexapla.schema import UserError

PROMPTS = {"query": "ask: ", "passage": "text: "}
TEXTS = ["Wer malte die Nachtwache?", "谁画了夜巡？", "Rembrandt", "Who painted it?"]


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine the threads of so small a model wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(tiny_folder):
    return encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")


def vectors(learner, seed=0, side="query"):
    torch.manual_seed(seed)
    return unit_vectors(learner.model, learner.tokenize(TEXTS, side, 64))


def loss(learner, seed=0):
    scores = vectors(learner, seed) @ vectors(learner, seed + 1, "passage").T / 0.05
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(TEXTS)))


def fit(learner, steps=20):
    """Weights as they were before training; the loss without dropout, before and after."""
    before = {name: weight.detach().clone() for name, weight in learner.model.named_parameters()}
    optimizer = torch.optim.AdamW(adapters.trainable_weights(learner).values(), lr=1e-2)
    first = loss(learner).item()
    learner.model.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss(learner, step).backward()
        optimizer.step()
    learner.model.eval()
    return before, first, loss(learner).item()


def gradients(learner):
    learner.model.zero_grad()
    learner.model.train()
    loss(learner).backward()
    return {name: weight.grad.clone() for name, weight in adapters.trainable_weights(learner).items()}


def test_freezing_leaves_the_rest_to_learn(tiny):
    adapters.freeze(tiny, embeddings=False, layers=0)
    everything = set(adapters.trainable_weights(tiny))
    assert not any("pooler" in name for name in everything)
    adapters.freeze(tiny, embeddings=True, layers=0)
    assert everything - set(adapters.trainable_weights(tiny)) == {
        n for n in everything if "word_embeddings" in n
    }
    adapters.freeze(tiny, embeddings=True, layers=1)
    assert all("layer.1." in name for name in adapters.trainable_weights(tiny))
    with pytest.raises(UserError, match="freeze_layers: 3, but the encoder has 2 layers"):
        adapters.freeze(tiny, embeddings=True, layers=3)
    with pytest.raises(UserError, match="what was loaded"):
        _ = tiny.identity


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("layers", [0, 1])
def test_what_trains_learns_and_what_is_frozen_stays_to_the_bit(tiny, rank, layers):
    adapters.freeze(tiny, embeddings=True, layers=layers)
    if rank:
        adapters.add_lora(tiny, rank=rank, seed=1)
    adapters.checkpoint_activations(tiny)
    trained = adapters.trainable_weights(tiny)
    before, first, last = fit(tiny)
    assert last < 0.5 * first
    for name, weight in tiny.model.named_parameters():
        assert torch.equal(weight, before[name]) == (name not in trained), name


def test_adapters_stand_on_all_linear_layers_that_are_not_frozen_and_change_nothing_at_first(tiny):
    plain = vectors(tiny).detach()
    adapters.freeze(tiny, embeddings=True, layers=1)
    adapters.add_lora(tiny, rank=4, seed=1)
    assert torch.equal(vectors(tiny), plain)
    places = {name.split(".lora_")[0].split("layer.1.")[1] for name in adapters.trainable_weights(tiny)}
    assert places == {
        "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
        "intermediate.dense", "output.dense",
    }  # fmt: skip
    assert {min(weight.shape) for weight in adapters.trainable_weights(tiny).values()} == {4}


def test_the_seed_alone_decides_the_adapters(tiny_folder):
    def adapted(seed):
        learner = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
        adapters.freeze(learner, embeddings=True, layers=0)
        before = torch.get_rng_state()
        adapters.add_lora(learner, rank=4, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([weight.flatten() for weight in adapters.trainable_weights(learner).values()])

    one = adapted(1)
    torch.rand(7)
    assert torch.equal(one, adapted(1))
    assert not torch.equal(one, adapted(2))


def test_something_has_to_be_left_to_train(tiny):
    with pytest.raises(UserError, match=r"train\.freeze_layers: 2 leaves nothing to train"):
        adapters.freeze(tiny, embeddings=True, layers=2)


def test_alpha_scales_what_the_adapters_add(tiny_folder):
    def query(alpha):
        learner = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
        adapters.freeze(learner, embeddings=True, layers=0)
        before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
        adapters.add_lora(learner, rank=2, seed=1, alpha=alpha)
        with torch.no_grad():
            for name, weight in adapters.trainable_weights(learner).items():
                if "lora_B" in name:
                    weight.fill_(0.5)
            a = next(w for n, w in adapters.trainable_weights(learner).items() if "query.lora_A" in n).sum(0)
        adapters.merge_lora(learner)
        name = next(name for name in before if "layer.0.attention.self.query.weight" in name)
        return learner.model.state_dict()[name] - before[name], a

    for alpha, scale in ((None, 2.0), (4.0, 2.0), (1.0, 0.5)):
        delta, a = query(alpha)
        torch.testing.assert_close(delta, (scale * 0.5 * a).expand_as(delta), atol=1e-6, rtol=0)


def test_merged_is_adapted_in_a_folder_that_knows_no_adapters(tiny, tmp_path):
    names = list(tiny.model.state_dict())
    structure = repr(tiny.model)
    adapters.freeze(tiny, embeddings=True, layers=0)
    adapters.add_lora(tiny, rank=4, seed=1)
    fit(tiny, steps=10)
    adapted = vectors(tiny).detach()
    adapters.merge_lora(tiny)
    assert list(tiny.model.state_dict()) == names
    assert repr(tiny.model) == structure
    torch.testing.assert_close(vectors(tiny), adapted, atol=1e-5, rtol=0)
    merged = {name: weight.clone() for name, weight in tiny.model.state_dict().items()}
    adapters.merge_lora(tiny)
    assert all(torch.equal(weight, merged[name]) for name, weight in tiny.model.state_dict().items())
    tiny.save(tmp_path / "model")
    saved = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(saved.encode_query(TEXTS), adapted, atol=1e-5)
    assert not [file for file in tmp_path.rglob("*") if "adapter" in file.name]
    assert not any("peft" in json.dumps(json.loads(f.read_text())) for f in tmp_path.rglob("config*.json"))


def test_adapters_are_refused_where_they_can_not_be(tiny):
    adapters.freeze(tiny, embeddings=False, layers=0)
    with pytest.raises(UserError, match="word embeddings don't; set train.freeze_embeddings: true"):
        adapters.add_lora(tiny, rank=4, seed=1)


@pytest.mark.parametrize("rank", [0, 4])
def test_checkpointed_activations_give_the_same_gradients_dropout_included(tiny, rank):
    adapters.freeze(tiny, embeddings=True, layers=1)
    if rank:
        adapters.add_lora(tiny, rank=rank, seed=1)
    plain = gradients(tiny)
    times = []
    tiny.model[0].model.encoder.layer[1].output.dense.register_forward_hook(lambda *_: times.append(1))
    assert gradients(tiny).keys() == plain.keys()
    assert len(times) == 2
    adapters.checkpoint_activations(tiny)
    again = gradients(tiny)
    assert len(times) == 6, "not computed twice"
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=0, rtol=0)
    # Nothing is carried down through what is frozen.
    states = []
    tiny.model[0].model.embeddings.register_forward_hook(lambda *given: states.append(given[-1]))
    vectors(tiny)
    assert not states[0].requires_grad


def test_an_encoder_that_can_not_checkpoint_is_a_mistake(tiny, monkeypatch):
    monkeypatch.setattr(type(tiny.model[0].model), "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match="train.gradient_checkpointing: the encoder .BertModel. can't"):
        adapters.checkpoint_activations(tiny)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_without_a_compiler_compiling_is_a_mistake(tiny):
    from torch._inductor import config

    torch._dynamo.reset()
    refused = r"train.compile: .*No working C\+\+ compiler.*install g\+\+.* or set it to false"
    with config.patch({"cpp.cxx": (None, "/nowhere/g++")}), pytest.raises(UserError, match=refused) as caught:
        adapters.compile_layers(tiny)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_give_the_gradients_of_plain_ones(tiny):
    adapters.freeze(tiny, embeddings=True, layers=1)
    adapters.add_lora(tiny, rank=4, seed=1)
    dropout = {m: m.p for m in tiny.model.modules() if isinstance(m, torch.nn.Dropout)}
    for module in dropout:
        module.p = 0.0
    names, plain = list(tiny.model.state_dict()), gradients(tiny)
    torch._dynamo.utils.counters.clear()
    adapters.compile_layers(tiny)
    for name, gradient in gradients(tiny).items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-3)
    assert list(tiny.model.state_dict()) == names
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 3
    for module, share in dropout.items():
        module.p = share
    # Gradient caching encodes a batch with gradient that it first encoded without.
    with torch.no_grad():
        first = vectors(tiny)
    assert torch.equal(first, vectors(tiny))
    assert not torch.equal(first, vectors(tiny, seed=5))
    dropped = gradients(tiny)
    adapters.checkpoint_activations(tiny)
    for name, gradient in gradients(tiny).items():
        torch.testing.assert_close(gradient, dropped[name], atol=1e-6, rtol=1e-4)


def test_what_is_no_transformer_can_not_be_trained(tiny):
    tiny.model[0] = torch.nn.Identity()
    with pytest.raises(UserError, match="no plain transformer"):
        adapters.freeze(tiny, embeddings=True, layers=0)


@pytest.mark.parametrize("rank", [0, 4])
def test_interpolated_weights_lie_between_start_and_end(tiny, rank):
    adapters.freeze(tiny, embeddings=True, layers=1)
    start = {name: weight.detach().clone() for name, weight in adapters.trainable_weights(tiny).items()}
    if rank:
        adapters.add_lora(tiny, rank=rank, seed=1)
    fit(tiny, steps=5)
    adapters.merge_lora(tiny)
    end = {name: weight.detach().clone() for name, weight in tiny.model.named_parameters()}
    adapters.interpolate(tiny, start, 0.0)
    assert all(torch.equal(weight, end[name]) for name, weight in tiny.model.named_parameters())
    adapters.interpolate(tiny, start, 0.25)
    moved = dict(tiny.model.named_parameters())
    for name, weight in end.items():
        wanted = 0.75 * weight + 0.25 * start[name] if name in start else weight
        torch.testing.assert_close(moved[name], wanted)
    assert any(not torch.equal(start[name], end[name]) for name in start)
    adapters.interpolate(tiny, start, 1.0)
    assert all(torch.equal(moved[name], start[name]) for name in start)


@pytest.mark.parametrize("rank", [0, 4])
def test_within_the_block_an_encoder_is_what_interpolating_makes_of_it(tiny, rank):
    adapters.freeze(tiny, embeddings=True, layers=1)
    start = {name: weight.detach().clone() for name, weight in adapters.trainable_weights(tiny).items()}
    if rank:
        adapters.add_lora(tiny, rank=rank, seed=1)
    fit(tiny, steps=5)
    trained = {name: weight.detach().clone() for name, weight in tiny.model.named_parameters()}
    plain = vectors(tiny).detach()
    with pytest.raises(KeyError), adapters.interpolated(tiny, start, 0.4):
        inside = vectors(tiny).detach()
        raise KeyError
    assert all(torch.equal(weight, trained[name]) for name, weight in tiny.model.named_parameters())
    assert torch.equal(vectors(tiny), plain)
    assert (inside - plain).abs().max() > 1e-3
    adapters.merge_lora(tiny)
    adapters.interpolate(tiny, start, 0.4)
    torch.testing.assert_close(vectors(tiny), inside, atol=1e-5, rtol=1e-4)
