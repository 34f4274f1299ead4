"""How noisy the policy gradient is under each baseline, on the same draws of the same images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rlcap import losses
from rlcap.agents.baselines import make_baseline
from rlcap.agents.rollout import Drawing, roll_out, score
from rlcap.contracts import Batch, Course, Judge, Policy
from rlcap.progress import track, warn


@dataclass(frozen=True)
class Noise:
    """Of one baseline's gradient estimates, over all parameters."""

    variance: float  # the trace of their covariance
    signal: float  # the squared norm of their mean, less what noise adds to it
    estimates: int

    @property
    def relative(self) -> float:
        """variance / signal: about how many such batches make noise as small as signal. inf: no signal was seen."""
        return self.variance / self.signal if self.signal > 0 else float("inf")


class Moments:
    """Mean and variance of vectors, one at a time (Welford 1962); nothing but the mean is kept."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), 0.0

    def add(self, vector: Tensor) -> None:
        self.count += 1
        apart = vector - self.mean
        self.mean = self.mean + apart / self.count
        self.squares += float(apart @ (vector - self.mean))

    def noise(self) -> Noise:
        variance = self.squares / (self.count - 1)
        return Noise(variance, float(self.mean @ self.mean) - variance / self.count, self.count)


def gradient_variance(
    policy: Policy,
    batch: Batch,
    judge: Judge,
    baselines: Iterable[str],
    repeats: int,
    *,
    drawing: Drawing = Drawing(),  # noqa: B008  frozen
    seed: int = 1,
    warm_up: int = 20,
) -> Mapping[str, Noise]:
    """Draws `repeats` times (at least 2) and never moves the policy. Baselines that learn see `warm_up` draws first."""
    policy.eval()
    course = Course(warm_up + repeats, device=batch.words.device, seed=seed, judge=judge)
    made = {name: make_baseline(name, drawing.samples, course) for name in baselines}
    greedy = any(baseline.greedy for baseline in made.values())
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    moments = {name: Moments() for name in made}
    for draw in track(range(warm_up + repeats), "drawing", warm_up + repeats):
        measuring = draw >= warm_up
        with torch.set_grad_enabled(measuring):
            rollout = roll_out(policy, batch, judge, drawing, seed=seed, update=draw, greedy=greedy)
        if measuring:
            log_prob = score(policy, rollout).log_prob
            for name, baseline in made.items():
                loss = losses.policy_gradient(log_prob, baseline(rollout), rollout.chosen, drawing.length)
                gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                pairs = zip(parameters, gradients, strict=True)
                moments[name].add(torch.cat([(p * 0 if g is None else g).detach().flatten() for p, g in pairs]))
        for baseline in made.values():
            baseline.learn(rollout)
    noises = {name: seen.noise() for name, seen in moments.items()}
    if unseen := [name for name, noise in noises.items() if noise.signal <= 0]:
        warn(f"inf ({', '.join(unseen)}): {repeats} draws are too few to tell signal from noise; take more")
    return noises
