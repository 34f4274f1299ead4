"""The caption environment, single and vector: what an episode is, what it pays, and that both forms are one."""

import itertools
import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rlcap.envs  # noqa: F401  registers
from rlcap.contracts import Candidates, Judgement
from rlcap.envs.caption import CaptionEnv
from rlcap.envs.caption_vector import CaptionVectorEnv
from rlcap.envs.transition import Written, drawn_images, transition
from rlcap.envs.world import Resident, World, tiny_world

ROUNDING = 2e-5  # twelve float32 differences of rewards up to 10


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world(6)


def played(env: CaptionEnv, words: list[int], **options: int) -> list[tuple]:
    env.reset(options=options)
    return [env.step(word) for word in words]


def reference(world: World, image: int) -> list[int]:
    return [*world.codec.encode(world.references.tokens[image][0]), world.codec.end]


@pytest.mark.parametrize("settings", [{}, {"reward": "spread", "action_mask": True}, {"features": False}])
def test_gymnasium_finds_nothing_to_complain_of(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("rlcap/Caption-v0", **settings).unwrapped)


def test_made_without_an_import_or_arguments():
    env = gymnasium.make("rlcap.envs:rlcap/Caption-v0")
    seen, info = env.reset(seed=1)
    assert seen["features"].shape == (16, 6)
    assert seen["words"].shape == (env.unwrapped.episodes.length,)
    assert info["action_mask"].dtype == np.int8


def test_a_reference_said_word_by_word_earns_what_the_reward_says(world):
    words = reference(world, 2)
    steps = played(CaptionEnv(world), words, image=2)
    earned = [reward for _, reward, *_ in steps]
    judged = world.judge(Candidates(torch.tensor([[words]]), torch.tensor([[len(words)]]), torch.tensor([2]), 1))
    assert earned[:-1] == [0.0] * (len(words) - 1)
    assert earned[-1] == pytest.approx(float(judged.total), abs=ROUNDING)
    assert earned[-1] > 1


def test_the_end_token_terminates_and_the_length_truncates(world):
    env = CaptionEnv(world, length=4)
    word = world.codec.encode(["a"])[0]
    assert [step[2:4] for step in played(env, [word, world.codec.end])] == [(False, False), (True, False)]
    flags = [step[2:4] for step in played(env, [word] * 4)]
    assert flags == [(False, False)] * 3 + [(False, True)]
    ended_at_the_limit = played(env, [word] * 3 + [world.codec.end])[-1]
    assert ended_at_the_limit[2:4] == (True, False)


def test_without_an_end_token_the_full_length_is_the_end(world):
    class Endless:
        size, pad, start, end, banned, fingerprint = 5, 0, 1, None, (0, 1), "endless"

    written = Written.empty(1, 2, 0, torch.device("cpu"))
    for said, over in ((3, False), (4, True)):
        written = transition(written, torch.tensor([said]), Endless())
        assert bool(written.ended) is over


@pytest.mark.parametrize("ended", [True, False])
def test_the_spread_reward_sums_to_the_terminal_one(world, ended):
    words = reference(world, 1)
    words = words if ended else words[:5]
    length = len(words) + ended
    spread = [step[1] for step in played(CaptionEnv(world, reward="spread", length=length), words, image=1)]
    terminal = [step[1] for step in played(CaptionEnv(world, length=length), words, image=1)]
    assert sum(spread) == pytest.approx(sum(terminal), abs=ROUNDING)
    assert sum(reward != 0 for reward in spread) > len(words) / 2
    before = world.judge(Candidates(torch.tensor([[words[:3]]]), torch.tensor([[3]]), torch.tensor([1]), 1)).total
    assert sum(spread[:3]) == pytest.approx(float(before), abs=ROUNDING)


def test_the_second_episode_owes_nothing_to_the_first(world):
    env = CaptionEnv(world, reward="spread")
    first = [step[1] for step in played(env, reference(world, 1), image=1)]
    assert [step[1] for step in played(env, reference(world, 1), image=1)] == first


def test_what_is_no_word_is_unknown_and_matches_nothing(world):
    codec = world.codec
    env = CaptionEnv(world)
    word, end = codec.encode(["a"])[0], codec.end
    heard = {said: played(env, [word, said, end], image=0) for said in (codec.pad, codec.start, codec.unknown)}
    for steps in heard.values():
        assert steps[-1][0]["words"][:3].tolist() == [word, codec.unknown, end]
        assert steps[-1][1] == heard[codec.unknown][-1][1]


def test_a_step_behind_the_end_is_refused(world):
    env = CaptionEnv(world)
    played(env, [world.codec.end])
    with pytest.raises(ResetNeeded):
        env.step(5)


def test_masks_stand_in_three_places_and_say_what_may_be_said(world):
    env = CaptionEnv(world, action_mask=True)
    seen, info = env.reset()
    codec = world.codec
    wanted = [int(word not in codec.banned) for word in range(codec.size)]
    for mask in (seen["action_mask"], info["action_mask"], env.action_masks()):
        assert mask.tolist() == wanted
    seen, *_, info = env.step(codec.end)
    for mask in (seen["action_mask"], info["action_mask"], env.action_masks()):
        assert np.flatnonzero(mask).tolist() == [codec.pad]


def test_a_seed_makes_the_same_images_and_seeds_differ(world):
    def images(seed: int, env: CaptionEnv) -> list[int]:
        return [env.reset(seed=seed)[1]["image"], *(env.reset()[1]["image"] for _ in range(11))]

    env = CaptionEnv(world)
    assert images(3, env) == images(3, CaptionEnv(world)) == images(3, env)
    assert images(3, env) != images(4, env)
    assert set(images(3, env) + images(4, env)) == set(range(6))
    with_one_chosen = CaptionEnv(world)
    with_one_chosen.reset(seed=3)
    assert with_one_chosen.reset(options={"image": 5})[1]["image"] == 5
    assert with_one_chosen.reset()[1]["image"] == images(3, env)[2]


def test_rows_take_seeds_of_their_own(world):
    """As gymnasium's SyncVectorEnv does; a row that is given none goes on as it was."""
    ours = CaptionVectorEnv(3, world, autoreset_mode="Disabled")
    theirs = SyncVectorEnv([lambda: CaptionEnv(world)] * 3, autoreset_mode="Disabled")
    for seed in ([5, 9, 5], [None, 2, None], None, 4, [None, None, 1], None):
        compare(ours.reset(seed=seed), theirs.reset(seed=seed))
    chosen = np.array([True, False, True])
    for seed in ([8, 8, 8], None):
        compare(*(env.reset(seed=seed, options={"reset_mask": chosen.copy()}) for env in (ours, theirs)), rows=chosen)
    compare(ours.reset(), theirs.reset())


def test_images_are_drawn_evenly():
    """Of 6000 draws of 6 images the counts lie within 1000 ± 5 standard deviations of 29."""
    counts = drawn_images(torch.arange(60).repeat_interleave(100), torch.arange(100).repeat(60), 6).bincount()
    assert len(counts) == 6
    assert (counts - 1000).abs().max() < 5 * 29


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("reward", ["terminal", "spread"])
def test_the_vector_form_is_single_ones_stacked(world, mode, reward):
    """Against gymnasium's own SyncVectorEnv: legal, illegal and ending words, some thirty episodes."""
    settings = {"length": 5, "reward": reward, "action_mask": True}
    ours = CaptionVectorEnv(4, world, autoreset_mode=mode, **settings)
    theirs = SyncVectorEnv([lambda: CaptionEnv(world, **settings)] * 4, autoreset_mode=mode)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    compare(ours.reset(seed=7), theirs.reset(seed=7))
    dice = np.random.default_rng(0)
    episodes = 0
    for _ in range(30):
        words = np.where(dice.random(4) < 0.3, world.codec.end, dice.integers(0, world.codec.size, 4))
        got, wanted = ours.step(words), theirs.step(words)
        compare(got, wanted)
        over = wanted[2] | wanted[3]
        episodes += over.sum()
        if mode is AutoresetMode.SAME_STEP:
            assert (got[4]["_final_obs"].numpy() == over).all()
            for row in np.flatnonzero(over):
                for name, part in wanted[4]["final_obs"][row].items():
                    np.testing.assert_array_equal(got[4]["final_obs"][name][row], part)
                assert got[4]["final_info"]["image"][row] == wanted[4]["final_info"]["image"][row]
        if mode is AutoresetMode.DISABLED and over.any():
            compare(*(env.reset(options={"reset_mask": over}) for env in (ours, theirs)), rows=over)
    assert episodes > 25


def compare(got: tuple, wanted: tuple, rows: np.ndarray | slice = slice(None)) -> None:
    """What reset or step gave; `rows`: those whose info the other form has."""
    assert got[0].keys() == wanted[0].keys()
    for name, part in wanted[0].items():
        assert got[0][name].numpy().dtype == part.dtype
        np.testing.assert_array_equal(got[0][name], part)
    for name in ("action_mask", "image"):
        np.testing.assert_array_equal(got[-1][name][rows], wanted[-1][name][rows])
    if len(got) == 5:
        np.testing.assert_allclose(got[1], wanted[1], atol=ROUNDING)
        np.testing.assert_array_equal(got[2], wanted[2])
        np.testing.assert_array_equal(got[3], wanted[3])


def test_disabled_rows_that_are_over_stay_so_and_earn_nothing(world):
    env = CaptionVectorEnv(2, world, length=6, reward="spread", autoreset_mode="Disabled")
    env.reset(options={"images": [0, 0]})
    word, end = world.codec.encode(["a"])[0], world.codec.end
    env.step(torch.tensor([word, word]))
    first = env.step(torch.tensor([end, word]))
    again = env.step(torch.tensor([word, word]))
    assert again[1][0] == 0
    assert again[2].tolist() == [True, False]
    assert (again[0]["words"][0] == first[0]["words"][0]).all()
    assert again[0]["step"].tolist() == [[2], [3]]
    assert again[4]["action_mask"][0].nonzero().flatten().tolist() == [world.codec.pad]


def test_a_caption_that_was_cut_cannot_end_later(world):
    env = CaptionVectorEnv(1, world, length=2, autoreset_mode="Disabled")
    env.reset()
    for _ in range(2):
        _, _, ended, cut, _ = env.step(np.array([5]))
    assert (ended.item(), cut.item()) == (False, True)
    _, _, ended, cut, _ = env.step(np.array([world.codec.end]))
    assert (ended.item(), cut.item()) == (False, True)


@pytest.mark.parametrize("reward", ["terminal", "spread"])
def test_rewards_that_change_between_calls_pay_once(world, reward):
    """Each call of this judge says more than the one before, about the same captions."""
    calls = itertools.count(1)

    def judge(candidates: Candidates) -> Judgement:
        return Judgement(torch.full(candidates.words.shape[:2], float(next(calls))), {})

    env = CaptionVectorEnv(2, replace(world, judge=judge), reward=reward, autoreset_mode="Disabled")
    env.reset()
    paid = [env.step(np.array([world.codec.end, word]))[1].tolist() for word in (4, 5, world.codec.end)]
    if reward == "spread":
        assert paid == [[1, 1], [0, 1], [0, 1]]
    else:
        assert paid == [[1, 0], [0, 0], [0, 2]]


def test_images_are_chosen_with_samples_of_each(world):
    env = CaptionVectorEnv(6, world, autoreset_mode="Disabled")
    _, info = env.reset(options={"images": torch.tensor([4, 1]), "samples": 3})
    assert info["image"].tolist() == [4, 4, 4, 1, 1, 1]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_what_is_returned_is_the_callers_alone(world, mode):
    """Whoever overwrites all of it changes nothing of what follows."""
    careless, careful = (CaptionVectorEnv(3, world, action_mask=True, autoreset_mode=mode) for _ in range(2))
    given, wanted = careless.reset(seed=0), careful.reset(seed=0)
    dice = np.random.default_rng(0)
    for _ in range(20):
        tensors = leaves(given)
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
        assert all((got == kept).all() for got, kept in zip(tensors, leaves(wanted), strict=True))
        for tensor in tensors:
            tensor.zero_()
        words = dice.integers(0, world.codec.size, 3)
        given, wanted = careless.step(words), careful.step(words)


def leaves(tree: object) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree
    return list(itertools.chain.from_iterable(leaves(part) for part in parts))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("reward", ["terminal", "spread"])
def test_no_step_asks_the_device_for_a_number(world, mode, reward):
    """Tensors on "meta" have shapes and no values: whoever reads one, as bool() or item() do, gets an error."""

    def judge(candidates: Candidates) -> Judgement:
        return Judgement(torch.zeros(candidates.words.shape[:2], device="meta"), {})

    source = Resident(world.source.read(torch.arange(6)))
    source._features = source._features.to("meta")
    nowhere = replace(
        world, source=source, judge=judge, references=replace(world.references, device=torch.device("meta"))
    )
    env = CaptionVectorEnv(4, nowhere, reward=reward, action_mask=True, autoreset_mode=mode)
    env.reset(seed=0)
    for actions in (torch.zeros(4, dtype=torch.long, device="meta"), np.zeros(4, int)):
        seen, earned, *_ = env.step(actions)
        assert (earned.device.type, seen["features"].device.type) == ("meta", "meta")


def test_a_world_is_shared_and_never_copied(world):
    envs = [gymnasium.make("rlcap/Caption-v0", world=world) for _ in range(2)]
    again = gymnasium.make(envs[0].spec)
    assert {id(env.unwrapped.world) for env in (*envs, again)} == {id(world)}


def test_made_by_name_in_vector_form():
    env = gymnasium.make_vec("rlcap/Caption-v0", num_envs=3)
    assert isinstance(env.unwrapped, CaptionVectorEnv)
    seen, _ = env.reset(seed=0)
    assert isinstance(seen["features"], torch.Tensor)
    env.step(env.action_space.sample())
