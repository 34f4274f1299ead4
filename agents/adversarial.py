"""Adversarial training: SeqGAN (Yu et al. 2017, arXiv 1609.05473) and, for a policy with a Manager, LeakGAN (Guo et al.
2018, arXiv 1709.08624). A discriminator learns to tell people's captions from the policy's, and rewards what it takes
for theirs.

First come updates of likelihood alone, for both sides; then adversarial updates and updates of likelihood take turns.
In each update the discriminator learns too. Rewards of prefixes come from playouts, and are ranked in the batch.

The curves that it logs, besides those of rlcap.agents.curves and, with `alignment_words`, rlcap.agents.naming:
- `loss/cross_entropy`: nats a word of people's captions, at updates of likelihood.
- `loss/attention`: the doubly stochastic penalty before its weight, there too.
- `loss/manager`: minus the cosine of goals and what the leaked feature did then; weighed by rewards in adversarial
  updates.
- `loss/worker`: its gradient is what matters; its value says nothing.
- `discriminator/loss`; `discriminator/real`, `/generated`, `/mismatched`: the share of each kind that it judges right,
  and `discriminator/accuracy`, their mean. Near 1 for long: it has won, and its rewards carry little; near a half: it
  has nothing to say.
- `reward/drawn`: the mean probability that it gives to drawn captions. `reward/spread`: their deviation in the batch.
- `reward/rank_correlation`: of what the policy was paid with that probability, over whole captions. 1 for ranked
  rewards; about 0 for the controls, whose rewards say nothing.
- `reward/intrinsic`: the Worker's own reward: how far the leaked feature went along with the goals.
- `goals/cosine`: between goals of different captions at the same word. Near 1 the goals have collapsed to one.
- `policy/entropy`: nats a word of drawn captions.
- `optimiser/gradient_norm`, `optimiser/rate`: of the policy, as in cross-entropy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.cross_entropy import attention_penalty
from rlcap.agents.curves import CaptionCurves
from rlcap.agents.naming import Naming
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.playouts import Playouts, prefix_rewards
from rlcap.agents.rollout import Drawing, Rollout, rescore, roll_out
from rlcap.config import NotNegative, Portion, Positive, Weight
from rlcap.contracts import Batch, Candidates, Course, Judgement, Policy, entropy_of
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.errors import ConfigError
from rlcap.models.discriminators import Discriminator
from rlcap.models.seeing import Seeing

PLAYOUT_SEED, NOISE_SEED = 10**6, 2 * 10**6  # apart from the seeds that people give
NO_REWARD = "reward/total"  # of a recipe without rewards


@dataclass(frozen=True)
class Turns:
    """The recipe's `turns` section: updates of likelihood, then the two kinds in turns."""

    pretraining: NotNegative = 1000
    adversarial: Positive = 15
    likelihood: NotNegative = 5

    def is_adversarial(self, update: int) -> bool:
        turn = (update - self.pretraining) % (self.adversarial + self.likelihood)
        return update >= self.pretraining and turn < self.adversarial

    def count(self, updates: int) -> int:
        """How many of the first `updates` are adversarial."""
        return sum(map(self.is_adversarial, range(updates)))


class Adversarial:
    """`reward`: "ranked" is LeakGAN's (eq. 11), "plain" SeqGAN's probability. The others are controls: "random" ranks
    noise, and "unsorted" pays by the place in the batch, as the published code of LeakGAN does.

    The Worker is paid by the goals (eq. 9), to the share `intrinsic`, and for the rest as the Manager is. A recipe's
    own rewards of whole captions, ranked too, make up `metric_share` of what the discriminator's would be. So with
    `intrinsic: 1`, the paper's way, `reward` reaches the words through the Manager's goals alone.

    `alignment_words`: the goals of people's captions are asked which of these words comes next, and with
    `alignment_weight` taught to tell it, at updates of likelihood.
    """

    shares_batches = False  # with other processes

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        rollout: Drawing = Drawing(samples=1),  # noqa: B008  frozen; `graph` does not matter: draws are always scored
        playouts: Playouts = Playouts(),  # noqa: B008  frozen
        turns: Turns = Turns(),
        reward: Literal["ranked", "plain", "random", "unsorted"] = "ranked",
        intrinsic: Portion = 1.0,
        attention_penalty: Weight = 0.0,  # as in cross_entropy
        metric_share: Portion = 0.0,
        alignment_weight: Weight = 0.0,
        alignment_words: tuple[str, ...] = (),
        discriminator_steps: NotNegative = 1,  # an update
        discriminator_optimiser: Optimiser = Optimiser(lr=1e-3),  # noqa: B008  frozen
        optimiser: Optimiser = Optimiser(lr=1e-3),  # noqa: B008  of likelihood
        adversarial_optimiser: Optimiser = Optimiser(lr=1e-4),  # noqa: B008  it has momenta of its own
    ) -> None:
        if (metric_share > 0) != (course.judge is not None):
            raise ConfigError(
                f"trainer.metric_share={metric_share}: "
                + ("the recipe has no rewards" if metric_share else "the recipe's rewards earn nothing")
                + "; give both or neither"
            )
        self.policy, self.course, self.drawing, self.playouts = policy, course, rollout, playouts
        self.turns, self.reward, self.metric_share = turns, reward, metric_share
        writer = policy.policy if isinstance(policy, Seeing) else policy
        self.discriminator = _inside(writer)
        if writer is not policy and self.discriminator.of_image is not None:
            raise ConfigError("policy.discriminator.sees_image: needs features; extract them, or set it false")
        self.horizon: int = getattr(writer, "horizon", 0) if getattr(writer, "manages", False) else 0  # 0: no goals
        self.intrinsic = intrinsic if self.horizon else 0.0
        if metric_share and self.intrinsic == 1:
            raise ConfigError(
                f"trainer.metric_share={metric_share}: with trainer.intrinsic=1 words earn by the goals alone; lower it"
            )
        if (alignment_weight or alignment_words) and not (self.horizon and alignment_words):
            raise ConfigError(
                f"trainer.alignment_weight={alignment_weight}, alignment_words={list(alignment_words)}: takes words, "
                "and goals (policy.manager above 0)"
            )
        self.naming: Naming | None = None
        if alignment_words:
            self.naming = Naming(alignment_words, policy.codec, self.discriminator.width, self.horizon, course)
        self.alignment_weight, self.attention_penalty = alignment_weight, attention_penalty
        self.steps = discriminator_steps
        self.captions = CaptionCurves(policy.codec)
        adversarial = turns.count(course.updates)
        self.descent = Descent(policy, optimiser, course.updates - adversarial)
        self.reinforcing = Descent(policy, adversarial_optimiser, adversarial)
        self.judging = Descent(self.discriminator, discriminator_optimiser, course.updates * discriminator_steps)

    @property
    def done(self) -> int:
        """Updates so far."""
        return self.descent.done + self.reinforcing.done

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        naming = {} if self.naming is None else {"naming": self.naming.guess}
        return {"policy": self.policy, **naming}  # the discriminator belongs to the policy

    def update(self, batch: Batch) -> dict[str, Tensor]:
        adversarial = self.turns.is_adversarial(self.done)
        drawn = [self._draw(batch, step) for step in range(max(self.steps, int(adversarial)))]
        curves = self._reinforce(batch, drawn[0]) if adversarial else self._imitate(batch)
        for rollout in drawn[: self.steps]:
            curves |= self._discriminate(batch, rollout)
        return curves

    def _imitate(self, batch: Batch) -> dict[str, Tensor]:
        """Words by likelihood; goals by where people's captions go (eq. 10)."""
        self.policy.train()
        with self.course.autocast():
            want = ["extras", "attention"] if self.attention_penalty else ["extras"]
            scores = self.policy(batch.features, batch.words, want=want)
        likelihood = -losses.masked_mean(scores.log_prob, batch.mask)
        curves, loss = {"loss/cross_entropy": likelihood.detach()}, likelihood
        if self.attention_penalty:
            penalty = attention_penalty(self.policy, scores, batch.mask)
            curves["loss/attention"], loss = penalty.detach(), loss + self.attention_penalty * penalty
        if self.horizon:
            alignment = self._alignment(scores.extras, batch.mask)
            manager = losses.manager(alignment, torch.ones_like(alignment), batch.mask)
            curves["loss/manager"], loss = manager.detach(), loss + manager
        if self.naming is not None:
            nats, found = self.naming.loss(scores.extras["goals"], batch.words)
            curves, loss = curves | found, loss + self.alignment_weight * nats
        return curves | self.descent.step(loss)

    def _reinforce(self, batch: Batch, rollout: Rollout) -> dict[str, Tensor]:
        length, mask = rollout.words.shape[-1], rollout.mask
        with self.course.autocast():
            probable = prefix_rewards(
                self.policy,
                self.discriminator,
                rollout,
                batch.images,
                self.playouts,
                seed=self.course.seed + PLAYOUT_SEED,
                update=self.done,
            )
            scored = rescore(self.policy, rollout, want=["extras"])
        paid = self._paid(probable, rollout)
        credit = self.playouts.by_word(paid, length)
        curves = {
            **{key: value for key, value in self.captions(rollout).items() if self.metric_share or key != NO_REWARD},
            **_of_rewards(probable, paid),
            "policy/entropy": losses.masked_mean(entropy_of(scored.distribution.detach()), mask),
        }
        loss = torch.zeros_like(paid[0, 0, 0])
        if self.horizon:
            goals, leaked = scored.extras["goals"], scored.extras["leaked"]
            later = torch.arange(length, device=paid.device).add(self.horizon - 1).clamp_max(length - 1)
            loss = losses.manager(self._alignment(scored.extras, mask), credit[..., later], mask)
            own = losses.intrinsic_reward(goals.detach(), leaked, self.horizon)
            credit = self.intrinsic * own + (1 - self.intrinsic) * credit
            curves |= {
                "loss/manager": loss.detach(),
                "reward/intrinsic": losses.masked_mean(own, mask),
                "goals/cosine": goal_cosine(goals.detach(), mask),
            }
        worker = losses.policy_gradient(scored.log_prob, _centred(credit, mask), mask, self.drawing.length)
        return curves | {"loss/worker": worker.detach()} | self.reinforcing.step(loss + worker)

    def _paid(self, probable: Tensor, rollout: Rollout) -> Tensor:
        """(B, N, P) probabilities -> what they are worth."""
        flat = probable.flatten(0, 1)
        if self.reward == "random":
            keys = torch.arange(len(flat), device=flat.device)
            flat = keyed_uniforms(self.course.seed + NOISE_SEED, self.done, keys, 1, flat.shape[1])[:, 0, :, 0]
        elif self.reward == "unsorted":
            flat = -torch.arange(len(flat), device=flat.device)[:, None].expand_as(flat).float()
        paid = flat if self.reward == "plain" else losses.ranked(flat)
        if self.metric_share:
            metric = losses.ranked(rollout.rewards.flatten()[:, None])
            paid = (1 - self.metric_share) * paid + self.metric_share * metric
        return paid.view_as(probable)

    def _alignment(self, extras: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        return losses.goal_alignment(extras["goals"], extras["leaked"], mask.sum(-1), self.horizon)

    @torch.no_grad()
    def _draw(self, batch: Batch, step: int) -> Rollout:
        self.policy.eval()
        with self.course.autocast():
            update = self.done * max(1, self.steps) + step
            judge = self.course.judge or _nothing
            return roll_out(self.policy, batch, judge, self.drawing, seed=self.course.seed, update=update)

    def _discriminate(self, batch: Batch, rollout: Rollout) -> dict[str, Tensor]:
        """People's captions with unknown words do not count: a policy cannot say them, and they would give it away."""
        discriminator, codec = self.discriminator.train(), self.policy.codec
        banned = torch.tensor([word for word in codec.banned if word != codec.pad], device=batch.words.device)
        counts = ~torch.isin(batch.words, banned).any(-1)
        with self.course.autocast():
            seen = discriminator.remember(batch.features)
            said, lengths = batch.words, batch.mask.sum(-1)
            real = discriminator.judge_captions(said, lengths, seen)
            others = {"generated": discriminator.judge_captions(rollout.words, rollout.mask.sum(-1), seen)}
            if seen is not None and len(seen) > 1:
                others["mismatched"] = discriminator.judge_captions(said, lengths, seen.roll(1, 0))
        weights = {kind: counts if kind == "mismatched" else torch.ones_like(each > 0) for kind, each in others.items()}
        loss = losses.discrimination(real, counts, [(others[kind], weights[kind]) for kind in others])
        self.judging.step(loss)
        discriminator.eval()
        right = {kind: losses.masked_mean((each < 0).float(), weights[kind]) for kind, each in others.items()}
        right["real"] = losses.masked_mean((real > 0).float(), counts)
        return {
            "discriminator/loss": loss.detach(),
            "discriminator/accuracy": torch.stack(list(right.values())).mean(),
            **{f"discriminator/{kind}": share for kind, share in right.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._learning().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self._learning().items():
            part.load_state_dict(state[name])

    def _learning(self) -> dict[str, Descent]:
        naming = {} if self.naming is None else {"naming": self.naming.descent}
        return {"descent": self.descent, "reinforcing": self.reinforcing, "judging": self.judging, **naming}


def goal_cosine(goals: Tensor, mask: Tensor) -> Tensor:
    """goals (B, N, T, F), mask (B, N, T): the mean cosine of two captions' goals at the same word."""
    unit = nn.functional.normalize(goals, dim=-1).masked_fill(~mask[..., None], 0).flatten(0, 1)
    there = mask.flatten(0, 1).sum(0)  # (T,)
    pairs = unit.sum(0).square().sum(-1) - there  # each pair twice; a goal with itself has 1
    return pairs.sum() / (there * (there - 1)).sum().clamp_min(1)


def _inside(policy: Policy) -> Discriminator:
    own = getattr(policy, "discriminator", None)
    if not isinstance(own, Discriminator):
        raise ConfigError(
            f"trainer adversarial: {type(policy).__name__} has no discriminator inside; take policy.name=leakgan "
            "(with policy.manager=0 it is SeqGAN's)"
        )
    return own


def _nothing(candidates: Candidates) -> Judgement:
    """A recipe without rewards of its own."""
    return Judgement(torch.zeros(candidates.words.shape[:2], device=candidates.words.device), {})


def _centred(credit: Tensor, mask: Tensor) -> Tensor:
    """Less the mean of the other captions at the same word: less noise, the same gradient. Alone it stays as it is."""
    known = credit.masked_fill(~mask, 0)
    others = (mask.sum((0, 1)) - 1).clamp_min(1)
    return credit - (known.sum((0, 1)) - known) / others


def _of_rewards(probable: Tensor, paid: Tensor) -> dict[str, Tensor]:
    whole, worth = probable[..., -1].flatten(), paid[..., -1].flatten()
    both = torch.stack((losses.ranks(whole), losses.ranks(worth)))
    return {
        "reward/drawn": whole.mean(),
        "reward/spread": whole.std(correction=0),
        "reward/rank_correlation": torch.corrcoef(both)[0, 1].nan_to_num(),  # no order where all are equal
    }
