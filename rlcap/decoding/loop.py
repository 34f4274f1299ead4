"""The one word loop: a policy writes captions word by word, greedily or by drawing."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from rlcap.contracts import Memory, Policy, State, at_least_float32, caption_mask
from rlcap.decoding.choosing import Sampling, drawn, likeliest
from rlcap.decoding.constraints import Constraints, constrain


@dataclass(frozen=True)
class Captions:
    """N captions of each of B images, as they were written."""

    words: Tensor  # (B, N, T), padding behind the end token
    mask: Tensor  # (B, N, T) bool: up to the end token, that one included
    log_prob: Tensor  # (B, N, T): of the distribution that the word was chosen from; 0 behind the end token
    choices: Tensor | None = None  # (B, N, T, …)
    attention: Tensor | None = None  # (B, N, T, R), on request
    distribution: Tensor | None = None  # (B, N, T, V), on request: the log-probabilities that words were chosen from
    state: State | None = None  # of the rows, on request: before the policy has heard the last word


def write(
    policy: Policy,
    memory: Memory,
    *,
    images: int,
    length: int,
    n: int = 1,
    sampling: Sampling | None = None,  # None: the likeliest word each time
    uniforms: Tensor | None = None,  # (B, N, T, 1 + policy.coins), needed for sampling: words first, then choices
    constraints: Constraints = Constraints(),  # noqa: B008  frozen
    forced: Tensor | None = None,  # (B, N, up to T) words that stand already; -1 where one is to be chosen
    after: Captions | None = None,  # go on with these, written up to some word, with their state
    until: int | None = None,  # how many words to write now, of `length`; None: all
    want: Collection[str] = (),  # "attention", "distribution", "state"
) -> Captions:
    """Captions of at most `length` words. There is no host synchronisation on an accelerator: all words are run."""
    codec, rows = policy.codec, images * n
    state = policy.start(memory, n, length) if after is None else after.state
    draws = None if uniforms is None else uniforms.reshape(rows, length, -1)
    device = draws.device if draws is not None else _device_of(policy)
    words = torch.full((rows, length), codec.pad, dtype=torch.long, device=device)
    log_probs: list[Tensor] = []
    said = torch.full((rows,), codec.start, dtype=torch.long, device=device)
    ended = torch.zeros(rows, dtype=torch.bool, device=device)
    given = None if forced is None else forced.flatten(0, 1)
    choices, attentions, distributions = [], [], []
    first = 0
    if after is not None:
        first = after.words.shape[-1]
        words[:, :first] = after.words.flatten(0, 1)
        said = words[:, first - 1]
        ended = ended if codec.end is None else (words == codec.end).any(-1)

    t = first - 1
    for t in range(first, length if until is None else until):
        coins = None if draws is None else draws[:, t, 1:]
        step = policy.step(said, state, memory, uniforms=coins, want=want)
        state = step.state
        scores = constrain(at_least_float32(step.logits), words, t, codec, constraints)
        if sampling is None:
            log_p = scores.log_softmax(-1)
            said = likeliest(scores)
        else:
            if draws is None:
                raise ValueError("sampling needs uniforms")
            log_p = sampling.log_probabilities(scores)
            said = drawn(log_p.detach(), draws[:, t, 0])
        if given is not None and t < given.shape[1]:
            said = torch.where(given[:, t] >= 0, given[:, t], said)
        said = said.masked_fill(ended, codec.pad)
        words[:, t] = said
        log_probs.append(log_p.gather(-1, said[:, None])[:, 0].masked_fill(ended, 0.0))
        if step.choices is not None:
            choices.append(step.choices)
        if step.attention is not None:
            attentions.append(step.attention)
        if "distribution" in want:
            distributions.append(log_p)
        if codec.end is not None:
            ended = ended | (said == codec.end)
            if device.type == "cpu" and bool(ended.all()):
                break

    def stacked(name: str, steps: list[Tensor]) -> Tensor | None:
        new = [torch.stack(steps, 1).unflatten(0, (images, n))] if steps else []
        before: Tensor | None = getattr(after, name, None)
        return torch.cat(new if before is None else [before, *new], 2) if new else before

    words, log_prob = words[:, : t + 1].unflatten(0, (images, n)), stacked("log_prob", log_probs)
    assert log_prob is not None
    return Captions(
        words=words,
        mask=caption_mask(words, codec.end),
        log_prob=log_prob,
        choices=stacked("choices", choices),
        attention=stacked("attention", attentions),
        distribution=stacked("distribution", distributions),
        state=state if "state" in want else None,
    )


def _device_of(policy: Policy) -> torch.device:
    return next(policy.parameters()).device
