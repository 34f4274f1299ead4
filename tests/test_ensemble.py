"""Several policies that write one caption."""

import pytest
import torch
from toy_policies import ToyCodec, ToyPolicy, toy_features

from rlcap.contracts import Policy, State, caption_mask
from rlcap.decoding.beam import beam_search
from rlcap.decoding.constraints import Constraints
from rlcap.decoding.loop import write
from rlcap.errors import ComponentError
from rlcap.models.ensemble import Ensemble

CODEC = ToyCodec(size=8)


class Reordering(ToyPolicy):
    """A policy with a `select` of its own."""

    selected = 0

    def select(self, state: State, rows: torch.Tensor) -> State:
        self.selected += 1
        return super().select(state, rows)


def search(policy: Policy, **settings):
    memory = policy.remember(toy_features(3))
    return beam_search(policy, memory, images=3, beams=4, length=6, constraints=Constraints(1), **settings)


def test_the_mean_of_probabilities():
    members = [ToyPolicy(CODEC, seed=seed) for seed in range(3)]
    ensemble, features = Ensemble(members), toy_features(2)
    words = torch.tensor([[[3, 4, 1], [5, 5, 6]], [[4, 1, 0], [7, 3, 3]]])
    probabilities = torch.stack([policy(features, words, want=("logits",)).logits.softmax(-1) for policy in members])
    scores = ensemble(features, words, want=("logits",))
    torch.testing.assert_close(scores.logits.exp(), probabilities.mean(0))
    torch.testing.assert_close(scores.logits.logsumexp(-1), torch.zeros(2, 2, 3))


def test_one_member_or_the_same_twice_writes_as_it_does_alone():
    policy = ToyPolicy(CODEC, seed=4)
    alone = search(policy)
    for members in ([policy], [policy, policy]):
        together = search(Ensemble(members))
        assert torch.equal(together.words, alone.words)
        torch.testing.assert_close(together.log_prob, alone.log_prob)


def test_beams_and_the_word_loop_take_it_as_it_is():
    members = [Reordering(CODEC, seed=seed) for seed in (1, 2)]
    ensemble = Ensemble(members)
    found = search(ensemble)
    scores = ensemble(toy_features(3), found.words)
    torch.testing.assert_close(found.log_prob, (scores.log_prob * caption_mask(found.words, 1)).sum(-1))
    assert members[0].selected == members[1].selected > 0
    greedy = write(ensemble, ensemble.remember(toy_features(3)), images=3, length=6)
    likeliest = ensemble(toy_features(3), greedy.words, want=("logits",)).logits
    likeliest[..., list(CODEC.banned)] = -torch.inf
    assert torch.equal(likeliest.argmax(-1)[greedy.mask], greedy.words[greedy.mask])


def test_attention_is_the_mean_where_it_can_be():
    members = [ToyPolicy(CODEC, seed=seed) for seed in (1, 2)]
    features = toy_features(3)
    words = torch.full((3, 1, 2), 3)
    maps = [policy(features, words, want=("attention",)).attention for policy in members]
    both = Ensemble(members)(features, words, want=("attention",)).attention
    torch.testing.assert_close(both, (maps[0] + maps[1]) / 2)
    assert search(Ensemble(members), want=("attention",)).attention.shape == (3, 4, 6, 4)
    assert Ensemble(members)(features, words).attention is None

    class Half(ToyPolicy):
        def remember(self, features):
            memory = super().remember(features)
            return {**memory, "values": memory["values"][:, :2]}

    mixed = Ensemble([members[0], Half(CODEC, seed=2)])
    assert search(mixed, want=("attention",)).attention is None


def test_its_weights_are_its_members():
    members = [ToyPolicy(CODEC, seed=seed) for seed in (1, 2)]
    ensemble = Ensemble(members)
    assert len(list(ensemble.parameters())) == 2 * len(list(members[0].parameters()))
    ensemble.eval()
    assert not members[1].training


def test_policies_that_do_not_belong_together_are_refused():
    other = ToyPolicy(ToyCodec(size=8, fingerprint="other"), seed=1)
    with pytest.raises(ComponentError, match="policy 1 has the vocabulary other, policy 0 has toy") as error:
        Ensemble([ToyPolicy(CODEC, seed=0), other])
    assert "\n" not in str(error.value)
    with pytest.raises(ComponentError, match="at least one"):
        Ensemble([])
