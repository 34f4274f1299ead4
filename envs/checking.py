"""Does an environment keep gymnasium's contract and the masks of ours, does it repeat itself, what does it pay?"""

import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.utils.env_checker import check_env as conform
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from rlcap.errors import ComponentError, RlcapError

EPISODES = 30
ENDLESS = 1000  # steps after which an episode counts as one that never ends
ROWS, STEPS = 3, 40  # of the comparison of both forms
ROUNDING = 1e-4  # of rewards in float32, added up in another order


@dataclass
class EnvCheck:
    """What was found; an environment is sound if there are no problems."""

    name: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For people."""
        facts = [("environment", self.name), *self.facts]
        width = max(len(label) for label, _ in facts) + 1
        yield from (f"{label + ':':{width}} {text}" for label, text in facts)
        yield from (f"problem: {problem}" for problem in self.problems)
        count = len(self.problems)
        yield f"not ok: {count} problem{'s' if count > 1 else ''} to mend" if count else "ok: no problem was found"


def check_env(name: str, settings: Mapping[str, Any]) -> EnvCheck:
    """`name`: a registered id ("rlcap/Caption-v0", "my_module:Mine-v0"), or "my_module:MyEnv", a class."""
    found = EnvCheck(name)
    spec = _spec_of(name, settings)
    env = _made(spec, name)
    for check in (_conformity, _episodes, _both_forms):
        try:
            check(spec, env, found)
        except Exception as error:  # whatever somebody's environment raises is a finding
            kind = "" if isinstance(error, AssertionError | RlcapError) else f"{type(error).__name__}: "
            found.problems.append(kind + " ".join(str(error).split()))
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _spec_of(name: str, settings: Mapping[str, Any]) -> EnvSpec:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # at the end, where it hides nothing
    try:
        if re.search(r"-v\d+$", name):
            module, _, short = name.rpartition(":")
            if module:
                __import__(module)
            spec = gymnasium.spec(short)
        else:
            load_env_creator(name)
            spec = EnvSpec("Checked-v0", entry_point=name, disable_env_checker=True)
    except Exception as error:
        raise ComponentError(f"environment '{name}': {' '.join(str(error).split())}; write module:Name-v0") from error
    return EnvSpec(**_parts(spec) | {"kwargs": dict(spec.kwargs) | dict(settings)})


def _parts(spec: EnvSpec) -> dict[str, Any]:
    """What an EnvSpec is made of, as arguments for another one."""
    wanted = ("id", "entry_point", "reward_threshold", "nondeterministic", "max_episode_steps", "vector_entry_point")
    return {part: getattr(spec, part) for part in wanted} | {"disable_env_checker": True}


def _made(spec: EnvSpec, name: str) -> Any:
    try:
        return gymnasium.make(spec)
    except RlcapError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise ComponentError(f"environment '{name}': cannot be made: {type(error).__name__}: {said}") from error


def _conformity(spec: EnvSpec, env: Any, found: EnvCheck) -> None:
    """gymnasium's own check; what it warns of is a problem too."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        conform(env.unwrapped)
    # Gymnasium colours its warnings.
    said = [re.sub(r"\x1b\[\d*m", "", " ".join(str(each.message).split())) for each in warned]
    found.problems += [text.removeprefix("WARN: ") for text in said]
    found.facts.append(("gymnasium", "check_env passes" if not said else f"check_env warns {len(said)} times"))


def _episodes(spec: EnvSpec, env: Any, found: EnvCheck) -> None:
    """Agents that say anything legal: what they get, and whether the same seed gives the same once more."""
    begun = time.perf_counter()
    played = [_play(env, seed) for seed in range(EPISODES)]
    seconds = time.perf_counter() - begun
    earned, steps = [sum(rewards) for rewards, _ in played], [len(rewards) for rewards, _ in played]
    found.facts += [
        ("episodes", f"{EPISODES}, {min(steps)} to {max(steps)} steps, {sum(steps) / seconds:,.0f} steps a second"),
        ("random", f"earns {np.mean(earned):.4g} on average, {min(earned):.4g} to {max(earned):.4g}"),
    ]
    if not spec.nondeterministic:
        again = [_play(env, seed) for seed in range(3)]
        assert data_equivalence(again, played[:3]), "the same seed and actions gave another episode the second time"


def _play(env: Any, seed: int) -> tuple[list[float], Any]:
    """The rewards of one episode, and its last observation."""
    seen, info = env.reset(seed=seed)
    dice = np.random.default_rng(seed)
    rewards: list[float] = []
    over = False
    while not over:
        _check_masks(env, seen, info)
        seen, reward, ended, cut, info = env.step(_legal_action(env.action_space, info, dice))
        assert np.isfinite(reward), f"a reward is {reward}: give finite ones"
        rewards.append(float(reward))
        over = ended or cut
        assert len(rewards) < ENDLESS, f"an episode has not ended after {ENDLESS} steps: truncate it earlier"
    return rewards, seen


def _check_masks(env: Any, seen: Any, info: dict[str, Any]) -> None:
    """Where masks of legal actions are offered in several places, they must agree, and leave something."""
    offered = {"info['action_mask']": info.get("action_mask")}
    if isinstance(seen, dict):
        offered["the observation"] = seen.get("action_mask")
    if hasattr(env.unwrapped, "action_masks"):
        offered["action_masks()"] = env.unwrapped.action_masks()
    masks = {place: np.asarray(mask) for place, mask in offered.items() if mask is not None}
    size = int(np.sum(getattr(env.action_space, "nvec", getattr(env.action_space, "n", 0))))
    for place, mask in masks.items():
        assert mask.shape == (size,), f"the mask in {place} has the shape {mask.shape}: give ({size},)"
        assert mask.any(), f"the mask in {place} leaves no action: leave at least one before the end"
    first = next(iter(masks.items()), None)
    for place, mask in masks.items():
        assert first is None or (mask.astype(bool) == first[1].astype(bool)).all(), f"{place} and {first[0]} differ"


def _legal_action(space: Any, info: dict[str, Any], dice: np.random.Generator) -> Any:
    space.seed(int(dice.integers(2**31)))
    mask = info.get("action_mask")
    if mask is None:
        return space.sample()
    mask = np.asarray(mask, np.int8)
    if isinstance(space, spaces.MultiDiscrete):
        return space.sample(mask=tuple(np.split(mask, np.cumsum(space.nvec)[:-1])))
    return space.sample(mask=mask)


def _both_forms(spec: EnvSpec, env: Any, found: EnvCheck) -> None:
    """The native vector form, if there is one, against single ones stacked by gymnasium."""
    if spec.vector_entry_point is None:
        return
    native = gymnasium.make_vec(spec, ROWS)
    mode = native.metadata.get("autoreset_mode")
    assert mode is not None, "the vector form does not say its metadata['autoreset_mode']"
    stacked = SyncVectorEnv([lambda: gymnasium.make(spec)] * ROWS, autoreset_mode=mode)
    assert native.observation_space == stacked.observation_space, "the vector form has another observation space"
    assert native.action_space == stacked.action_space, "the vector form has another action space"
    _same(native.reset(seed=0)[:1], stacked.reset(seed=0)[:1], 0)
    native.action_space.seed(0)
    for step in range(1, STEPS + 1):
        actions = native.action_space.sample()
        _same(native.step(actions)[:4], stacked.step(actions)[:4], step)
    found.facts.append(("vector form", f"{ROWS} rows equal single ones over {STEPS} steps ({mode.value})"))


def _same(native: tuple[Any, ...], stacked: tuple[Any, ...], step: int) -> None:
    for part, got, wanted in zip(("observation", "reward", "terminated", "truncated"), native, stacked, strict=False):
        pairs = [(got[key], wanted[key]) for key in wanted] if isinstance(wanted, dict) else [(got, wanted)]
        for one, other in pairs:
            values = one.cpu().numpy() if isinstance(one, Tensor) else np.asarray(one)
            assert np.allclose(values, other, atol=ROUNDING), f"the vector form's {part} differs at step {step}"
