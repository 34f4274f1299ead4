"""The image-to-state decoder against torch's own recurrent networks; what all policies must do is tested elsewhere."""

import pytest
import torch
from torch import nn

from rlcap.models.show_tell import ShowTell


def of_torch(policy: ShowTell, kind: type[nn.RNNBase]) -> nn.RNNBase:
    """The same cell in torch: both have input, forget, candidate, output (or reset, update, new) in some order."""
    size, cell = policy.cell.hidden, policy.cell
    theirs = kind(policy.embed.embedding_dim, size, batch_first=True)
    order = [0, 1, 3, 2] if kind is nn.LSTM else range(cell.gates)  # torch's candidate comes before its output gate

    def arranged(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor.chunk(cell.gates)[gate] for gate in order])

    with torch.no_grad():
        theirs.weight_ih_l0.copy_(arranged(policy.word_to_cell.weight))
        theirs.weight_hh_l0.copy_(arranged(cell.of_state.weight))
        theirs.bias_hh_l0.copy_(arranged(cell.of_state.bias))
        theirs.bias_ih_l0.zero_()
    return theirs


@pytest.mark.parametrize(("cell", "kind"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN)])
def test_says_what_torchs_network_says(cell, kind, codec, shape, features):
    torch.manual_seed(1)
    policy = ShowTell(codec, shape, hidden=7, embedding=5, dropout=0.0, cell=cell)
    words = torch.tensor([[[*codec.encode(["a", "red", "ball"]), codec.end]]]).expand(3, 1, 4)
    mean = torch.stack([values[mask].mean(0) for values, mask in zip(features.values, features.mask, strict=True)])
    first = policy.first_state(mean).tanh().chunk(policy.cell.tensors, -1)
    before = torch.cat((torch.full((3, 1), codec.start), words[:, 0, :-1]), 1)
    begun = tuple(part[None].contiguous() for part in first)
    hidden, _ = of_torch(policy, kind)(policy.embed(before), begun if kind is nn.LSTM else begun[0])
    expected = policy.output(hidden).log_softmax(-1)
    scores = policy(features, words, want=["logits", "entropy"])
    got = scores.logits[:, 0].log_softmax(-1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)  # float32, sums in another order
    torch.testing.assert_close(
        scores.log_prob[:, 0], expected.gather(-1, words[:, 0, :, None])[..., 0], rtol=0, atol=1e-5
    )
    torch.testing.assert_close(scores.entropy[:, 0], -(expected.exp() * expected).sum(-1), rtol=0, atol=1e-5)
