"""Goals that should tell which word is named next."""

import math
from typing import Any

import pytest
import torch
from adversaries import LENGTH, batch, policy
from torch import Tensor
from toy_policies import ToyCodec

from rlcap.agents.adversarial import Adversarial, Turns
from rlcap.agents.naming import NOTHING, Naming
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.rollout import Drawing
from rlcap.contracts import Batch, Course, caption_mask
from rlcap.errors import ConfigError

NAMES = ("3", "4", "5")


class Numbered(ToyCodec):
    def encode(self, words):
        return [int(word) if word.isdigit() else 2 for word in words]  # 2: banned, stands for unknown words


def test_a_goal_is_asked_for_the_first_name_while_it_is_in_force():
    naming = Naming(["5", "3"], Numbered(), 4, 3, Course(5))
    words = torch.tensor([[[4, 4, 4, 3, 5, 4, 1, 0], [5, 3, 1, 0, 0, 0, 0, 0]]])
    found = naming.targets(words)
    wanted = []
    for caption in words[0].tolist():
        coming = [[{5: 0, 3: 1}[word] for word in caption[t : t + 3] if word in (3, 5)] for t in range(len(caption))]
        wanted.append([names[0] if names else NOTHING for names in coming])
    assert found[0].tolist() == wanted
    assert wanted[0] == [NOTHING, 1, 1, 1, 0, NOTHING, NOTHING, NOTHING]


def trained(updates: int, **naming: Any) -> tuple[Adversarial, dict[str, Tensor]]:
    """People say 3 3 5 or 4 4. The curves of the last update."""
    of = policy(manager=8).float()
    of.codec = Numbered()
    trainer = Adversarial(
        of,
        Course(updates),
        rollout=Drawing(samples=1, length=LENGTH),
        turns=Turns(pretraining=updates),
        optimiser=Optimiser(lr=2e-2, clip=0),
        discriminator_steps=0,
        **naming,
    )
    words = torch.tensor([[3, 3, 5], [4, 4, 1]])[torch.arange(8) % 2][:, None]
    text = batch(8)
    text = Batch(text.images, text.features, words, caption_mask(words, 1))
    curves: dict[str, Tensor] = {}
    for _ in range(updates):
        curves = trainer.update(text)
    return trainer, curves


def test_goals_learn_to_name_if_it_weighs():
    (_, asked), (_, taught) = (trained(150, alignment_words=NAMES, alignment_weight=weight) for weight in (0.0, 3.0))
    # Five goals are asked, three of 3 3 5 and two of 4 4. Nobody can know what the first of each is asked for.
    assert 0.39 * math.log(2) < float(taught["alignment/loss"]) < 0.5 * math.log(2)
    assert float(taught["alignment/accuracy"]) == pytest.approx(0.8)
    assert float(taught["alignment/loss"]) < float(asked["alignment/loss"]) - 0.02


def test_it_moves_the_manager_and_only_if_it_weighs():
    (without, _), (asked, _), (taught, _) = (
        trained(1, **naming)
        for naming in ({}, {"alignment_words": NAMES}, {"alignment_words": NAMES, "alignment_weight": 1.0})
    )
    for (name, before), after, aligned in zip(
        without.policy.named_parameters(), asked.policy.parameters(), taught.policy.parameters(), strict=True
    ):
        assert torch.equal(before, after), name
        assert torch.equal(before, aligned) == (not name.startswith(("manager.", "direct."))), name


def test_words_that_cannot_be_asked_for():
    for words, message in (
        (("3", "fox"), r"alignment_words: 'fox' is not in the vocabulary"),
        (("3",), r"alignment_words=\['3'\]: give two or more different words"),
        (("3", "3"), r"give two or more different words"),
    ):
        with pytest.raises(ConfigError, match=message):
            Naming(words, Numbered(), 4, 3, Course(5))
    for manager, words in ((5, ()), (0, ("3", "4"))):
        with pytest.raises(ConfigError, match=r"alignment_weight=1.0.*: takes words, and goals"):
            Adversarial(policy(manager), Course(5), alignment_weight=1.0, alignment_words=words)
