"""Beam search against brute force, against a textbook's version of it, and in the corners."""

import pytest
import torch
from toy_policies import PlainView, ToyCodec, ToyPolicy, memory_of, toy_features

from rlcap.contracts import caption_mask
from rlcap.decoding.beam import Beams, _Captions, _n_best, beam_search
from rlcap.decoding.constraints import Constraints
from rlcap.decoding.loop import write
from rlcap.errors import ConfigError

# The search adds float32 logarithms, the plain versions doubles: a dozen sums of size 10, some 1e-6 off each.
CLOSE = 2e-5
FREE = Constraints()

Ranked = list[tuple[tuple[int, ...], float, float, bool]]  # words, log_prob, score, finished: best first


def every_caption(view: PlainView, length: int, alpha: float) -> Ranked:
    """All captions that there are, by brute force."""
    end, captions = view.policy.codec.end, []

    def write_on(prefix: tuple[int, ...], log_prob: float) -> None:
        if len(prefix) == length or (prefix and prefix[-1] == end):
            finished = end is None or prefix[-1] == end
            captions.append((prefix, log_prob, log_prob / len(prefix) ** alpha, finished))
            return
        for word in view.next_words(prefix):
            write_on((*prefix, word), log_prob + view.log_probs(prefix)[word])

    write_on((), 0.0)
    return sorted(captions, key=lambda caption: (caption[3], caption[2]), reverse=True)


def textbook(view: PlainView, length: int, alpha: float, beams: int, groups: int = 1, diversity: float = 0.0) -> Ranked:
    """Beam search with lists. It never stops early, but a group that is done is heard no more by others."""
    end, width = view.policy.codec.end, beams // groups
    live = [[((), 0.0)] for _ in range(groups)]
    done: list[Ranked] = [[] for _ in range(groups)]
    for t in range(length):
        heard: list[int] = []
        for g in range(groups):
            grown = [
                ((*prefix, word), log_prob + view.log_probs(prefix)[word])
                for prefix, log_prob in live[g]
                for word in view.next_words(prefix)
            ]
            grown.sort(key=lambda one: one[1] - diversity * heard.count(one[0][-1]), reverse=True)
            for words, log_prob in grown[:width]:
                if words[-1] == end:
                    done[g].append((words, log_prob, log_prob / (t + 1) ** alpha, True))
            live[g] = [one for one in grown if one[0][-1] != end][:width]
            heard += [words[-1] for words, _ in live[g]]
            kept = sorted((one[2] for one in done[g]), reverse=True)[:width]
            best = max((log_prob for _, log_prob in live[g]), default=0.0)
            if groups > 1 and len(kept) == width and best / length**alpha <= kept[-1]:
                live[g] = []
    found: Ranked = []
    for g in range(groups):
        found += sorted(done[g], key=lambda one: one[2], reverse=True)[:width]
    for g in range(groups):
        found += [(words, lp, lp / length**alpha, end is None) for words, lp in live[g]]
    distinct = {one[0]: one for one in reversed(found)}
    return sorted(distinct.values(), key=lambda one: (one[3], one[2]), reverse=True)[:beams]


def as_list(beams: Beams, image: int, end: int | None) -> Ranked:
    """What was found of an image, after a look at the places left over."""
    found, lengths = [], caption_mask(beams.words, end).sum(-1)
    for k in range(beams.words.shape[1]):
        words = tuple(beams.words[image, k, : lengths[image, k]].tolist())
        score, log_prob = float(beams.score[image, k]), float(beams.log_prob[image, k])
        assert not beams.words[image, k, lengths[image, k] :].any()  # padding is 0
        if score == -float("inf"):
            assert not beams.words[image, k].any()
            assert not beams.finished[image, k]
            assert log_prob == score
        else:
            found.append((words, log_prob, score, bool(beams.finished[image, k])))
            assert len(found) == k + 1  # nothing stands behind a place left over
    return found


def assert_same(found: Ranked, expected: Ranked) -> None:
    assert [(words, finished) for words, _, _, finished in found] == [(e[0], e[3]) for e in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[1:3] == pytest.approx(theirs[1:3], abs=CLOSE)


CONSTRAINTS = [
    FREE,
    Constraints(min_words=2),
    Constraints(no_repeat_ngram=1),
    Constraints(3, 2),
    Constraints(1, 0, (4,)),
]


@pytest.mark.parametrize("alpha", [0.0, 0.7])
@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
@pytest.mark.parametrize("end", [1, None])
def test_wide_enough_it_finds_every_caption_in_order(alpha, constraints, end):
    policy = ToyPolicy(ToyCodec(size=6 if end else 5, end=end), seed=5)
    memory = policy.remember(toy_features(2))
    beams = beam_search(
        policy, memory, images=2, beams=130, length=4, constraints=constraints, length_normalisation=alpha
    )
    for image in range(2):
        expected = every_caption(PlainView(policy, memory, image, constraints), 4, alpha)
        assert len(expected) < 130
        assert_same(as_list(beams, image, end), expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_narrow_it_finds_what_the_textbook_finds(seed, alpha):
    policy = ToyPolicy(ToyCodec(size=7, end=1 if seed else None), seed=seed)
    memory = policy.remember(toy_features(2, seed=seed))
    for constraints in CONSTRAINTS:
        views = [PlainView(policy, memory, image, constraints) for image in range(2)]
        for width in (1, 2, 3, 5):
            found = beam_search(
                policy,
                memory,
                images=2,
                beams=width,
                length=7,
                constraints=constraints,
                length_normalisation=alpha,
            )
            for image, view in enumerate(views):
                assert_same(as_list(found, image, policy.codec.end), textbook(view, 7, alpha, width))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length", [3, 7])
@pytest.mark.parametrize(("groups", "diversity"), [(2, 0.5), (3, 0.5), (3, 5.0), (6, 1.0), (2, 0.0)])
def test_diverse_groups_find_what_the_textbook_finds(seed, length, groups, diversity):
    policy = ToyPolicy(ToyCodec(size=7), seed=seed)
    memory = policy.remember(toy_features(4, seed=seed))
    settings = {"groups": groups, "diversity": diversity}
    found = beam_search(policy, memory, images=4, beams=6, length=length, constraints=FREE, **settings)
    for image in range(4):
        view = PlainView(policy, memory, image, FREE)
        assert_same(as_list(found, image, 1), textbook(view, length, 0.0, 6, **settings))


def test_one_group_is_plain_and_strong_diversity_starts_differently():
    policy = ToyPolicy(ToyCodec(size=9), seed=1)
    memory = policy.remember(toy_features(3))

    def search(**settings) -> Beams:
        return beam_search(
            policy, memory, images=3, beams=4, length=6, constraints=Constraints(min_words=1), **settings
        )

    assert torch.equal(search().words, search(groups=1, diversity=3.0).words)
    for of_image in search(groups=4, diversity=100.0).words[..., 0].tolist():
        assert len(set(of_image)) == 4


def test_one_beam_is_greedy():
    policy = ToyPolicy(ToyCodec(size=9), seed=2)
    memory = policy.remember(toy_features(20))
    found = beam_search(policy, memory, images=20, beams=1, length=8, constraints=FREE)
    greedy = write(policy, memory, images=20, length=8, constraints=FREE)
    run = greedy.words.shape[2]
    assert torch.equal(found.words[..., :run], greedy.words)
    assert not found.words[..., run:].any()
    lengths = greedy.mask.sum(-1).unique().tolist()
    assert len(lengths) > 2  # short ones, long ones


@pytest.mark.parametrize("settings", [{}, {"length_normalisation": 0.9}, {"groups": 2, "diversity": 0.4}])
def test_batched_and_one_by_one_agree(settings):
    policy = ToyPolicy(ToyCodec(size=12), seed=4)
    memory = policy.remember(toy_features(16))
    arguments = {
        "beams": 4,
        "length": 9,
        "constraints": Constraints(2, 2),
        "want": ("attention",),
        **settings,
    }
    together = beam_search(policy, memory, images=16, **arguments)
    for image in range(16):
        alone = beam_search(policy, memory_of(memory, image), images=1, **arguments)
        assert torch.equal(alone.words[0], together.words[image])
        assert torch.equal(alone.finished[0], together.finished[image])
        torch.testing.assert_close(alone.score[0], together.score[image], atol=CLOSE, rtol=0)
        torch.testing.assert_close(alone.attention[0], together.attention[image], atol=CLOSE, rtol=0)


def test_it_answers_when_nothing_finishes():
    policy = ToyPolicy(ToyCodec(size=7), seed=3, end_bias=-1e4)
    memory = policy.remember(toy_features(2))
    found = beam_search(policy, memory, images=2, beams=3, length=5, constraints=FREE, length_normalisation=1.0)
    assert not found.finished.any()
    assert found.score.isfinite().all()
    for image in range(2):
        assert_same(as_list(found, image, 1), textbook(PlainView(policy, memory, image, FREE), 5, 1.0, 3))


def test_finished_captions_come_before_likelier_ones_that_were_cut():
    policy = ToyPolicy(ToyCodec(size=7), seed=3, end_bias=-4.0)
    memory = policy.remember(toy_features(8))
    found = beam_search(policy, memory, images=8, beams=20, length=4, constraints=FREE)
    mixed = found.finished.any(1) & ~found.finished.all(1)
    assert mixed.any()
    assert (found.finished.int().diff(dim=1) <= 0).all()
    assert (found.score[:, 1:] > found.score[:, :1])[mixed].any()


def test_it_stops_when_nothing_can_improve_and_not_before():
    policy = ToyPolicy(ToyCodec(size=7), seed=0, end_bias=1.0)
    memory = policy.remember(toy_features(3))
    for alpha in (0.0, 0.5):
        policy.steps = 0
        found = beam_search(policy, memory, images=3, beams=3, length=60, constraints=FREE, length_normalisation=alpha)
        assert policy.steps < 60
        for image in range(3):
            expected = textbook(PlainView(policy, memory, image, FREE), 60, alpha, 3)
            assert_same(as_list(found, image, 1), expected)


def test_length_normalisation_prefers_longer_captions():
    policy = ToyPolicy(ToyCodec(size=9), seed=6, end_bias=1.0)
    memory = policy.remember(toy_features(20))
    words = [
        beam_search(policy, memory, images=20, beams=5, length=10, constraints=FREE, length_normalisation=alpha).words[
            :, 0
        ]
        for alpha in (0.0, 1.0)
    ]
    plain, normalised = (caption_mask(best, 1).sum(-1) for best in words)
    assert (normalised >= plain).all()
    assert (normalised > plain).any()


def test_attention_is_that_of_the_captions_found():
    policy = ToyPolicy(ToyCodec(size=8), seed=7)
    memory = policy.remember(toy_features(3))
    found = beam_search(policy, memory, images=3, beams=4, length=6, constraints=FREE, want=("attention",))
    scores = policy.score(memory, found.words, want=("attention",))
    counts = caption_mask(found.words, 1)
    torch.testing.assert_close(found.attention, scores.attention * counts[..., None])
    torch.testing.assert_close(found.log_prob, (scores.log_prob * counts).sum(-1), atol=CLOSE, rtol=0)
    assert beam_search(policy, memory, images=3, beams=4, length=6, constraints=FREE).attention is None


def test_no_caption_is_returned_twice():
    policy = ToyPolicy(ToyCodec(size=4), seed=8)  # one word and the end: a caption a length
    memory = policy.remember(toy_features(2))
    for groups in (1, 2):
        settings = {"groups": groups, "want": ("attention",)}
        found = beam_search(policy, memory, images=2, beams=8, length=3, constraints=FREE, **settings)
        for image in range(2):
            captions = [words for words, *_ in as_list(found, image, 1)]
            assert sorted(captions) == [(1,), (3, 1), (3, 3, 1), (3, 3, 3)]
        assert not found.attention[:, 4:].any()  # the places left over


def test_a_place_left_over_hides_no_caption_of_another_group():
    nothing, words = torch.full((2, 1), -torch.inf), torch.tensor([[[3, 1]], [[3, 1]]])
    one = torch.tensor([[-torch.inf], [-2.0]])
    pool, cut = _Captions(one, one, words), _Captions(nothing, nothing, torch.zeros_like(words))
    found = _n_best(pool, cut, images=1, beams=2, pad=0, has_end=True)
    assert as_list(found, 0, 1) == [((3, 1), -2.0, -2.0, True)]


def test_nobody_asks_for_gradients():
    policy = ToyPolicy(ToyCodec(), seed=0)
    found = beam_search(policy, policy.remember(toy_features(1)), images=1, beams=2, length=3, constraints=FREE)
    assert not found.score.requires_grad


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beams": 0}, "0 beams"),
        ({"groups": 3}, "4 beams do not divide into 3 groups"),
        ({"length": 0}, "0 words"),
        ({"length_normalisation": -0.1}, "length_normalisation -0.1"),
        ({"diversity": -1.0}, "diversity -1.0"),
    ],
)
def test_impossible_settings_are_answered_in_one_line(settings, says):
    policy = ToyPolicy(ToyCodec(), seed=0)
    arguments = {"images": 1, "beams": 4, "length": 3, "constraints": FREE, **settings}
    with pytest.raises(ConfigError, match=says) as error:
        beam_search(policy, policy.remember(toy_features(1)), **arguments)
    assert "\n" not in str(error.value)
