"""From features to captions in words: every setting reaches the search or the loop that it is for."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from toy_policies import PlainView, ToyCodec, ToyPolicy, toy_features

from rlcap.config import Decoding
from rlcap.contracts import Features, Memory, Policy, State, Step
from rlcap.decoding.constraints import Constraints
from rlcap.decoding.decode import Hypothesis, decode

WAYS = pytest.mark.parametrize("way", [{}, {"sample": True}, {"beam": 3}], ids=["greedy", "sample", "beam"])
# Sums of a dozen float32 logarithms of size 10
CLOSE = {"abs": 2e-5}


@dataclass(frozen=True)
class Codec(ToyCodec):
    """Tells the words up to the end token only, as a vocabulary does."""

    def words(self, tokens: Sequence[int]) -> list[str]:
        tokens = list(tokens)
        return [str(token) for token in (tokens[: tokens.index(self.end)] if self.end in tokens else tokens)]


class Bigram(Policy):
    """Each word depends on the one before: {word: {next: probability}}, by the kind of the image; else the end."""

    def __init__(self, *kinds: dict[int, dict[int, float]]) -> None:
        super().__init__()
        self.codec = Codec(size=8)
        table = torch.zeros(len(kinds), 8, 8)
        for kind, words in enumerate(kinds):
            for word in range(8):
                for following, probability in words.get(word, {self.codec.end: 1.0}).items():
                    table[kind, word, following] = probability
        self.table = nn.Parameter(table.log())

    def remember(self, features: Features) -> Memory:
        return features.values[:, 0, 0].long()

    def start(self, memory: Memory, n: int, length: int) -> State:
        return ()

    def step(
        self,
        words: Tensor,
        state: State,
        memory: Memory,
        *,
        uniforms: Tensor | None = None,
        choices: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Step:
        kinds = memory.repeat_interleave(len(words) // len(memory))
        return Step(self.table[kinds, words], state)


def kinds(*numbers: int) -> Features:
    values = torch.tensor(numbers).float().view(-1, 1, 1)
    return Features(values, torch.ones(len(numbers), 1, dtype=torch.bool))


def run(policy: Policy, features: Features, n_best: int = 1, keys: Sequence[int] | None = None, **settings):
    """What `decode` finds; `seed` and `want` are its own, the rest is of its settings."""
    others = {name: settings.pop(name) for name in ("seed", "want") if name in settings}
    names = torch.tensor(range(features.images) if keys is None else keys)
    return decode(policy, features, Decoding(**settings), keys=names, n_best=n_best, **others)


def said(found: list[list[Hypothesis]]) -> list[list[str]]:
    return [[hypothesis.text for hypothesis in of_image] for of_image in found]


def greedy_by_hand(policy: Policy, features: Features, length: int) -> list[list[str]]:
    captions = []
    for image in range(features.images):
        view, prefix = PlainView(policy, policy.remember(features), image, Constraints()), ()
        while len(prefix) < length and prefix[-1:] != (policy.codec.end,):
            log_probs = view.log_probs(prefix)
            prefix = (*prefix, max(view.next_words(prefix), key=log_probs.__getitem__))
        captions.append([" ".join(policy.codec.words(prefix))])
    return captions


@pytest.fixture
def policy() -> ToyPolicy:
    return ToyPolicy(Codec(size=12), seed=1)


@pytest.fixture
def features() -> Features:
    return toy_features(6)


def test_greedy_is_the_default_and_says_one_caption(policy, features):
    found = run(policy.train(), features, length=9)
    assert said(found) == greedy_by_hand(policy, features, 9)
    assert not policy.training


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.005}, {"temperature": 3.0, "top_k": 1}, {"temperature": 3.0, "top_p": 1e-6}],
    ids=lambda settings: list(settings)[-1],
)
def test_samples_that_may_not_vary_are_the_greedy_caption(policy, features, settings):
    samples = said(run(policy, features, n_best=5, sample=True, length=9, **settings))
    assert samples == [captions * 5 for captions in greedy_by_hand(policy, features, 9)]


def test_temperature_varies_and_cuts_restrain():
    policy, features = ToyPolicy(Codec(size=13), seed=1), toy_features(1)

    def different(**settings: float) -> int:
        """Among 60 captions of four words."""
        samples = run(policy, features, n_best=60, sample=True, length=4, min_words=4, **settings)
        return len(set(said(samples)[0]))

    # Ten words may come, so there are 10^4 captions: that two of 60 are alike has a probability of 0.16
    assert different(temperature=1e3) >= 58
    assert 2 < different() < 50
    assert different(temperature=1e3, top_k=2) <= 2**4
    assert 2 <= different(temperature=1e3, top_p=0.11) <= 2**4, "each word has a probability of about 0.1"


@WAYS
def test_no_caption_is_longer_than_length_nor_shorter_than_min_words(way):
    policy, features = ToyPolicy(Codec(size=12), seed=1, end_bias=1.0), toy_features(20)

    def lengths(**settings: int) -> set[int]:
        found = run(policy, features, n_best=3 if way else 1, **settings, **way)
        return {len(hypothesis.words) for of_image in found for hypothesis in of_image}

    assert min(lengths(length=9)) < 3
    assert min(lengths(length=9, min_words=3)) == 3
    assert max(lengths(length=9)) > 3
    assert max(lengths(length=3)) == 3


@WAYS
def test_no_ngram_comes_twice_if_so_asked(way):
    policy, features = ToyPolicy(Codec(size=6), seed=1, end_bias=-9.0), toy_features(4)

    def repeats(n: int, **settings: int) -> bool:
        captions = [h.words for of_image in run(policy, features, length=9, **settings, **way) for h in of_image]
        grams = [[words[i : i + n] for i in range(len(words) - n + 1)] for words in captions]
        return any(len(set(of_caption)) < len(of_caption) for of_caption in grams)

    assert repeats(2)
    assert not repeats(2, no_repeat_ngram=2)
    assert repeats(1, no_repeat_ngram=2), "three words alone cannot fill nine places"
    assert not repeats(1, no_repeat_ngram=1)


def test_length_normalisation_ranks_the_longer_caption_first():
    """'3' has ln 0.3 = -1.20 over 2 words with its end, '4 5' ln 0.216 = -1.53 over 3."""
    policy = Bigram({2: {3: 0.6, 4: 0.4}, 3: {1: 0.5, 3: 0.5}, 4: {5: 0.9, 1: 0.1}, 5: {1: 0.6, 5: 0.4}})
    settings = {"beam": 4, "length": 6}
    ((plain, *_),) = run(policy, kinds(0), **settings)
    ((longer, *_),) = run(policy, kinds(0), **settings, length_normalisation=1.0)
    assert (plain.text, plain.log_prob) == ("3", pytest.approx(math.log(0.3)))
    assert (longer.text, longer.log_prob) == ("4 5", pytest.approx(math.log(0.216))), "the sum, not the mean"


def test_groups_that_hear_one_another_begin_with_other_words():
    """'3 4' 0.54 and '3 5' 0.36 are likelier than '6' 0.1."""
    policy = Bigram({2: {3: 0.9, 6: 0.1}, 3: {4: 0.6, 5: 0.4}})
    settings = {"n_best": 2, "beam": 2, "length": 4}
    assert said(run(policy, kinds(0), **settings)) == [["3 4", "3 5"]]
    assert said(run(policy, kinds(0), **settings, diversity=9.0)) == [["3 4", "3 5"]], "there is one group"
    assert said(run(policy, kinds(0), **settings, groups=2)) == [["3 4"]], "both groups find the same"
    assert said(run(policy, kinds(0), **settings, groups=2, diversity=9.0)) == [["3 4", "6"]]


def test_n_best_are_the_first_of_the_beam(policy, features):
    five = run(policy, features, n_best=5, beam=5, length=5)
    assert [len(of_image) for of_image in five] == [5] * 6
    assert run(policy, features, n_best=3, beam=5, length=5) == [of_image[:3] for of_image in five]
    assert run(policy, features, beam=5, length=5) == [of_image[:1] for of_image in five]
    assert run(policy, features, n_best=5, length=5) == five, "a beam as wide as what is asked for"
    assert run(policy, features, n_best=5, beam=2, length=5) == five
    six = run(policy, features, n_best=6, beam=6, length=5, groups=2, diversity=0.5)
    rounded_up = run(policy, features, n_best=5, beam=4, length=5, groups=2, diversity=0.5)
    assert rounded_up == [of_image[:5] for of_image in six], "groups of three: five do not divide into two"


def test_a_beam_tells_the_log_probability_of_each_caption_best_first():
    policy, features = ToyPolicy(Codec(size=6), seed=2, end_bias=2.0), toy_features(3)
    found = run(policy, features, n_best=4, beam=4, length=30)
    for image, of_image in enumerate(found):
        view = PlainView(policy, policy.remember(features), image, Constraints())
        for hypothesis in of_image:
            words = (*map(int, hypothesis.words), policy.codec.end)
            total = sum(view.log_probs(words[:t])[word] for t, word in enumerate(words))
            assert hypothesis.log_prob == pytest.approx(total, **CLOSE)
        log_probs = [hypothesis.log_prob for hypothesis in of_image]
        assert log_probs == sorted(log_probs, reverse=True)


def test_a_key_names_its_samples_alone_and_in_a_batch(policy, features):
    settings = {"n_best": 4, "sample": True, "length": 9}
    keys = [7, 3, 8, 1, 11, 5]
    together = said(run(policy, features, keys=keys, **settings))
    for image, key in enumerate(keys):
        one = Features(features.values[image : image + 1], features.mask[image : image + 1])
        assert said(run(policy, one, keys=[key], **settings)) == together[image : image + 1]
    fewer = said(run(policy, features, keys=keys, **{**settings, "n_best": 2}))
    assert fewer == [captions[:2] for captions in together]
    assert all(len(set(captions)) > 1 for captions in together)
    same = said(run(policy, features, keys=keys, seed=1, **settings))
    assert same == together
    for other in (run(policy, features, keys=keys, seed=2, **settings), run(policy, features, **settings)):
        equal = sum(a == b for a, b in zip(said(other), together, strict=True))
        assert equal <= 1, "four captions may be alike by chance"


@WAYS
def test_attention_has_a_row_a_word(policy, features, way):
    found = run(policy, features, n_best=3 if way else 1, length=9, want=["attention"], **way)
    memory = policy.remember(features)
    lengths = set()
    for image, of_image in enumerate(found):
        view = PlainView(policy, memory, image, Constraints())
        for hypothesis in of_image:
            ids = tuple(map(int, hypothesis.words))
            lengths.add(len(ids))
            assert hypothesis.attention.shape == (len(ids), 4)
            for t in range(len(ids)):
                state = view.step(ids[: t - 1]).state if t else policy.start(view.memory, 1, 99)
                before = torch.tensor([ids[t - 1] if t else policy.codec.start])
                step = policy.step(before, state, view.memory, want=["attention"])
                assert hypothesis.attention[t] == pytest.approx(step.attention[0].detach().numpy(), **CLOSE)
    assert len(lengths) > 1
    assert all(h.attention is None for of_image in run(policy, features, length=9, **way) for h in of_image)
    blind = run(Bigram({2: {3: 1.0}}), kinds(0), want=["attention"], **way)
    assert (blind[0][0].text, blind[0][0].attention) == ("3", None)


def test_an_image_has_as_many_captions_as_its_beam_found():
    policy = Bigram({2: {3: 1.0}}, {2: {3: 0.5, 4: 0.3, 5: 0.2}}, {2: {1: 1.0}})
    found = run(policy, kinds(1, 0, 2, 1), n_best=4, beam=4, length=3)
    assert said(found) == [["3", "4", "5"], ["3"], [""], ["3", "4", "5"]]
    assert [h.log_prob for h in found[0]] == pytest.approx([math.log(p) for p in (0.5, 0.3, 0.2)], **CLOSE)
    assert found[2][0].words == ()
