"""Bottom-up top-down attention against its paper, with torch's own LSTM cells over the inputs side by side."""

import torch
from torch import Tensor, nn

from rlcap.models.bottom_up_top_down import BottomUpTopDown
from rlcap.models.cells import LSTM

OURS = [0, 1, 3, 2]  # in the order of torch's gates


def cell_of(lstm: LSTM, *maps: nn.Linear) -> nn.LSTMCell:
    """One cell that is given all inputs side by side."""

    def in_order(rows: Tensor) -> Tensor:
        return torch.cat([rows.chunk(4)[gate] for gate in OURS])

    weight = torch.cat([each.weight for each in maps], 1)
    cell = nn.LSTMCell(weight.shape[1], lstm.hidden).double()
    with torch.no_grad():
        cell.weight_ih.copy_(in_order(weight))
        cell.weight_hh.copy_(in_order(lstm.of_state.weight))
        cell.bias_hh.copy_(in_order(lstm.of_state.bias))
        cell.bias_ih.zero_()
    return cell


def test_two_words_by_the_papers_equations(codec, shape, features):
    torch.manual_seed(1)
    policy = BottomUpTopDown(codec, shape, hidden=7, embedding=4, attention=3, dropout=0.0).double()
    top_down = cell_of(
        policy.attention_lstm, policy.language_to_attention, policy.mean_to_attention, policy.word_to_attention
    )
    language = cell_of(policy.language_lstm, policy.seen_to_language, policy.attention_to_language)

    values = features.values[1, :4].double()  # the image with two regions fewer
    one, two = [torch.zeros(1, 7).double()] * 2, [torch.zeros(1, 7).double()] * 2
    wanted, looks = [], []
    for word in (codec.start, 5):
        inputs = torch.cat((two[0][0], values.mean(0), policy.embed.weight[word]))  # eq. 2
        one = top_down(inputs[None], one)
        att = policy.attend
        energy = torch.tanh(att.of_values(values) + att.of_query(one[0])) @ att.energy.weight[0]  # eq. 3
        looks.append(energy.softmax(0))  # eq. 4
        two = language(torch.cat((looks[-1] @ values, one[0][0]))[None], two)  # eq. 5, 6
        wanted.append(policy.output(two[0][0]))  # eq. 7

    double = type(features)(features.values.double(), features.mask)
    words = torch.full((3, 2, 2), 5)
    scores = policy.score(policy.remember(double), words, want=["logits", "attention"])
    torch.testing.assert_close(scores.logits[1, 1], torch.stack(wanted), rtol=0, atol=1e-12)
    torch.testing.assert_close(scores.attention[1, 1, :, :4], torch.stack(looks), rtol=0, atol=1e-12)
    assert scores.attention[1, ..., 4:].abs().max() == 0
