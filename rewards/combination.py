"""All rewards of a recipe as one: each normalised, clipped and weighed, then added up or multiplied in.

It logs nothing itself: a `Judgement` holds every reward raw and weighted, and the trainer shows their means.
"""

import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlcap import distributed
from rlcap.components import find
from rlcap.config import Term
from rlcap.contracts import Candidates, Codec, Judgement, Reward
from rlcap.data.references import References
from rlcap.data.tokens import tokenise
from rlcap.errors import ComponentError, ConfigError, RlcapError, did_you_mean
from rlcap.progress import say


def make_rewards(terms: Mapping[str, Term], references: References, codec: Codec | None = None) -> "Combination":
    """The rewards that a recipe names. `codec`: the policy's, if it may spell otherwise than the references."""
    rewards: dict[str, Reward] = {}
    for label, term in terms.items():
        rewards[label] = find("reward", term.name)(references, **term.settings)
    return Combination(terms, rewards, references, codec)


class Combination:
    """Judges candidates by several rewards, each under its label."""

    def __init__(
        self,
        terms: Mapping[str, Term],
        rewards: Mapping[str, Reward],
        references: References,
        codec: Codec | None = None,
    ) -> None:
        _check_factors(terms)
        self.terms, self.rewards, self.references = dict(terms), dict(rewards), references
        self.updates = 0  # batches of drawn captions so far: where the schedules of weights stand
        self._normalisers = {label: Normaliser(references.device) for label, term in terms.items() if term.normalise}
        same = codec is None or codec.fingerprint == references.vocabulary.fingerprint
        self._speller = None if same or codec is None else Speller(codec, references)

    def __call__(self, candidates: Candidates) -> Judgement:
        candidates = self.spelt(candidates)
        raw: dict[str, Tensor] = {}
        weighted: dict[str, Tensor] = {}
        by_word: dict[str, Tensor] = {}
        answers = {label: self._asked(label, candidates) for label in self.terms}  # before anything is learned
        for label, term in self.terms.items():
            values, weight = answers[label], weight_at(term.weight, self.updates)
            if values.dim() == 3:
                by_word[label] = weight * values
                values = values.sum(-1)
            raw[label] = values
            if label in self._normalisers:
                values = self._normalisers[label](values, candidates.drawn)
            if term.clip is not None:
                values = values.clamp(*term.clip)
            weighted[label] = weight * values
        self.updates += candidates.drawn > 0
        for label, term in self.terms.items():
            if term.times is not None:
                weighted[term.times] = weighted[term.times] * weighted[label]
                if term.times in by_word:
                    by_word[term.times] = by_word[term.times] * weighted[label][..., None]
        added = [label for label, term in self.terms.items() if term.times is None]
        return Judgement(
            total=torch.stack([weighted[label] for label in added]).sum(0),
            parts={label: (raw[label], weighted[label]) for label in self.terms},
            by_word=torch.stack([by_word[label] for label in by_word]).sum(0) if by_word else None,
        )

    def spelt(self, candidates: Candidates) -> Candidates:
        """The candidates in the references' vocabulary."""
        return candidates if self._speller is None else self._speller(candidates)

    def _asked(self, label: str, candidates: Candidates) -> Tensor:
        """One reward's answer, checked; credit by word is 0 behind the captions."""
        try:
            values = self.rewards[label](candidates)
        except RlcapError:
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {' '.join(str(error).split())} at {frame.filename}:{frame.lineno}"
            raise ComponentError(f"reward '{label}': {said}") from error
        shapes = (candidates.words.shape[:2], candidates.words.shape)
        if not isinstance(values, Tensor) or values.shape not in shapes:
            what = f"a tensor of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ComponentError(
                f"reward '{label}': gave {what} for {shapes[1][0]} images x {shapes[1][1]} captions; give a tensor of "
                f"shape {tuple(shapes[0])}, or {tuple(shapes[1])} for credit by word"
            )
        if values.dim() == 3:
            term = self.terms[label]
            if term.normalise or term.clip is not None or term.times is not None:
                raise ConfigError(
                    f"rewards.{label}: gives credit by word, which cannot be normalised, clipped or multiplied in; "
                    "leave those out"
                )
            behind = torch.arange(values.shape[-1], device=values.device) >= candidates.lengths[..., None]
            values = values.masked_fill(behind, 0)
        if values.is_complex():
            raise ComponentError(f"reward '{label}': gave complex numbers; give real ones")
        values = values.detach().to(self.references.dtype)
        if values.device.type == "cpu" and not values.isfinite().all():  # elsewhere, the training's log finds it
            row, n, *_ = (~values.isfinite()).nonzero()[0].tolist()
            image = self.references.images[int(candidates.images[row])]
            raise ComponentError(
                f"reward '{label}': gave a number that is not finite for caption {n} of image {image}; "
                "give finite numbers"
            )
        return values

    def state_dict(self) -> dict[str, Any]:
        return {
            "updates": self.updates,
            "normalisers": {label: each.state_dict() for label, each in self._normalisers.items()},
            "rewards": {label: reward.state_dict() for label, reward in self.rewards.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = state["updates"]
        for label, normaliser in self._normalisers.items():
            normaliser.load_state_dict(state["normalisers"][label])
        for label, reward in self.rewards.items():
            reward.load_state_dict(state["rewards"][label])


def weight_at(weight: float | tuple[tuple[int, float], ...], updates: int) -> float:
    """A weight after so many updates: points are joined by lines, and flat outside them."""
    if not isinstance(weight, tuple):
        return weight
    at, values = zip(*weight, strict=True)
    return float(np.interp(updates, at, values))


def _check_factors(terms: Mapping[str, Term]) -> None:
    """What multiplies must name a reward that is added."""
    for label, term in terms.items():
        if term.times is None:
            continue
        if term.times not in terms:
            raise ConfigError(
                f"rewards.{label}.times: there is no reward '{term.times}'{did_you_mean(term.times, terms)}"
            )
        if terms[term.times].times is not None:
            raise ConfigError(
                f"rewards.{label}.times: '{term.times}' multiplies another one itself; name one that is added"
            )


class Normaliser:
    """Takes the running mean out of a reward, and divides by the running deviation; drawn captions teach both."""

    def __init__(self, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean, self.squares = torch.zeros_like(self.count), torch.zeros_like(self.count)

    def __call__(self, values: Tensor, drawn: int) -> Tensor:
        """(B, N) -> (B, N). The sums merge as in Chan, Golub & LeVeque 1983; no number leaves the device."""
        if drawn:
            seen = values[:, :drawn].double()
            many = distributed.size() * distributed.mean_count(seen.numel(), seen)
            mean = distributed.size() * distributed.mean(seen.sum()) / many
            apart = distributed.size() * distributed.mean((seen - mean).square().sum())
            total, gap = self.count + many, mean - self.mean
            self.squares = self.squares + apart + gap**2 * self.count * many / total
            self.mean = self.mean + gap * many / total
            self.count = total
        deviation = (self.squares / self.count.clamp_min(1)).sqrt().clamp_min(1e-8)
        deviation = torch.where(self.count > 0, deviation, 1.0)  # nothing is known yet
        return ((values - self.mean) / deviation).to(values.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        device = self.count.device
        self.count, self.mean, self.squares = (state[name].to(device) for name in ("count", "mean", "squares"))


class Speller:
    """Captions of a policy with ids of its own, spelt in the references' vocabulary by way of text."""

    def __init__(self, codec: Codec, references: References) -> None:
        self.codec, self.vocabulary = codec, references.vocabulary
        say("rewards: the policy spells otherwise than the data set, so its captions go through text (slower)")

    def __call__(self, candidates: Candidates) -> Candidates:
        images, n, _ = candidates.words.shape
        vocabulary = self.vocabulary
        rows = []
        said = candidates.words.flatten(0, 1).tolist()
        for ids, length in zip(said, candidates.lengths.flatten().tolist(), strict=True):
            caption = ids[:length]
            spelt = vocabulary.encode(tokenise(" ".join(self.codec.words(caption))))
            ended = self.codec.end is None or self.codec.end in caption
            rows.append([*spelt, vocabulary.end] if ended else spelt)
        longest = max(1, *map(len, rows))
        words = torch.tensor([[*row, *[vocabulary.pad] * (longest - len(row))] for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        device = candidates.words.device
        return Candidates(
            words=words.view(images, n, longest).to(device),
            lengths=lengths.view(images, n).to(device),
            images=candidates.images,
            drawn=candidates.drawn,
            features=candidates.features,
        )
