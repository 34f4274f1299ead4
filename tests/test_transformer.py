"""The transformer against torch's own layers; what it keeps of words and regions. More in test_every_policy.py."""

import pytest
import torch
from torch import Tensor, nn

from rlcap.contracts import Features, tree_map
from rlcap.errors import ConfigError
from rlcap.models.transformer import Transformer

SIZES = {"width": 16, "heads": 2, "layers": 2, "inner": 20, "dropout": 0.0}


def small(codec, shape, **settings) -> Transformer:
    torch.manual_seed(1)
    return Transformer(codec, shape, **{**SIZES, "encoder_layers": 1, **settings}).double()


def exact(features: Features) -> Features:
    return Features(features.values.double(), features.mask)


def attention_of_torch(ours: nn.Module, theirs: nn.MultiheadAttention) -> None:
    for part in ("weight", "bias"):
        stacked = torch.cat([getattr(ours.query, part), getattr(ours.key_and_value, part)])
        getattr(theirs, f"in_proj_{part}").copy_(stacked)
    theirs.out_proj.load_state_dict(ours.output.state_dict())


def layer_of_torch(ours: nn.Module, crossed: bool) -> nn.Module:
    kind = nn.TransformerDecoderLayer if crossed else nn.TransformerEncoderLayer
    theirs = kind(16, 2, 20, 0.0, batch_first=True, norm_first=True).double()
    norm, into, _, _, out = ours.think_over
    norms = [ours.before_others, *([ours.before_regions] if crossed else []), norm]
    with torch.no_grad():
        attention_of_torch(ours.others, theirs.self_attn)
        if crossed:
            attention_of_torch(ours.regions, theirs.multihead_attn)
    for part, mine in [*((f"norm{i}", norm) for i, norm in enumerate(norms, 1)), ("linear1", into), ("linear2", out)]:
        getattr(theirs, part).load_state_dict(mine.state_dict())
    return theirs


@torch.no_grad()
def test_says_what_torchs_layers_say(codec, shape, features):
    # the same numbers in another order of operations: float64 leaves only rounding
    policy, features = small(codec, shape), exact(features)
    words = torch.randint(4, codec.size, (3, 2, 5))
    found = policy(features, words, want=["logits"]).logits

    absent = ~features.mask
    seen = policy.project(features.values)
    for layer in policy.region_layers:
        seen = layer_of_torch(layer, crossed=False)(seen, src_key_padding_mask=absent)
    seen = policy.region_norm(seen).repeat_interleave(2, 0)
    start = torch.full((6, 1), codec.start)
    place = torch.arange(5.0, dtype=torch.double)[:, None]
    waves = place / 10000 ** (torch.arange(0, 16, 2, dtype=torch.double) / 16)
    x = policy.embed(torch.cat([start, words.view(6, 5)[:, :-1]], 1)) * 4 + torch.cat([waves.sin(), waves.cos()], -1)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    for layer in policy.word_layers:
        x = layer_of_torch(layer, crossed=True)(
            x, seen, tgt_mask=future, memory_key_padding_mask=absent.repeat_interleave(2, 0)
        )
    assert torch.allclose(found.flatten(0, 1), policy.output(policy.word_norm(x)), atol=1e-6)  # its waves are float32


@torch.no_grad()
def test_a_step_leaves_the_state_before_as_it_was(codec, shape, features):
    """Two ways on from one state do not disturb each other: what a beam, or a prefix, relies on."""
    policy, features = small(codec, shape), exact(features)
    memory = policy.remember(features)
    first = policy.step(torch.full((3,), codec.start), policy.start(memory, 1, 4), memory).state
    before = tree_map(Tensor.clone, first)
    one = policy.step(torch.full((3,), 4), first, memory).state
    policy.step(torch.full((3,), 5), first, memory)
    alone = policy.step(torch.full((3,), 4), before, memory).state
    said = torch.full((3,), 6)
    assert torch.equal(policy.step(said, one, memory).logits, policy.step(said, alone, memory).logits)


@torch.no_grad()
def test_looks_only_at_regions_that_are_there(codec, shape, features):
    policy, features = small(codec, shape), exact(features)
    memory = policy.remember(features)
    attention = policy.score(memory, torch.randint(4, codec.size, (3, 2, 5)), want=["attention"]).attention
    assert torch.allclose(attention.sum(-1), torch.ones((), dtype=torch.double))
    assert attention[1, ..., -2:].abs().max() == 0
    assert policy.step(torch.full((3,), codec.start), policy.start(memory, 1, 4), memory).attention is None


def test_the_output_layer_may_be_the_embedding(codec, shape):
    tied, untied = small(codec, shape), small(codec, shape, tied=False)
    assert tied.output.weight is tied.embed.weight
    assert untied.output.weight is not untied.embed.weight


def test_a_width_that_heads_do_not_divide_is_refused(codec, shape):
    with pytest.raises(ConfigError, match="width=18, heads=2"):
        small(codec, shape, width=18)
