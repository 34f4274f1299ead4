"""Features -> captions in words, by whichever way of decoding the settings name. Evaluation and `caption` use it."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlcap.config import Decoding
from rlcap.contracts import Features, Policy
from rlcap.decoding.beam import beam_search
from rlcap.decoding.choosing import Sampling
from rlcap.decoding.constraints import Constraints
from rlcap.decoding.loop import write
from rlcap.decoding.uniforms import keyed_uniforms


@dataclass(frozen=True)
class Hypothesis:
    """One caption of one image."""

    words: tuple[str, ...]
    log_prob: float  # nats: of a beam under the policy, else under the distribution that chose the words
    attention: np.ndarray | None = None  # (T, R), a row a word, on request

    @property
    def text(self) -> str:
        return " ".join(self.words)


@torch.inference_mode()
def decode(
    policy: Policy,
    features: Features,
    settings: Decoding,
    *,
    keys: Tensor,  # (B,) integers that name the images: the same key draws the same samples
    n_best: int = 1,
    seed: int = 1,
    want: Collection[str] = (),  # "attention"
) -> list[list[Hypothesis]]:
    """For each image its captions, best first: the n best of a beam, n samples, or the one greedy caption."""
    policy.eval()
    memory = policy.remember(features)
    images = keys.shape[0]
    constraints = Constraints(settings.min_words, settings.no_repeat_ngram)
    if settings.beam > 1 or (n_best > 1 and not settings.sample):
        beams_asked = max(settings.beam, n_best)
        beams = beam_search(
            policy,
            memory,
            images=images,
            beams=beams_asked + -beams_asked % settings.groups,
            length=settings.length,
            constraints=constraints,
            length_normalisation=settings.length_normalisation,
            groups=settings.groups,
            diversity=settings.diversity,
            want=want,
        )
        words, log_prob, attention = beams.words, beams.log_prob, beams.attention
    else:
        sampling = uniforms = None
        if settings.sample:
            sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
            uniforms = keyed_uniforms(seed, 0, keys, n_best, settings.length, 1 + policy.coins)
        captions = write(
            policy,
            memory,
            images=images,
            n=n_best if settings.sample else 1,
            length=settings.length,
            sampling=sampling,
            uniforms=uniforms,
            constraints=constraints,
            want=want,
        )
        words, log_prob, attention = captions.words, captions.log_prob.sum(-1), captions.attention
    return _in_words(policy, words, log_prob, attention, n_best)


def _in_words(
    policy: Policy, words: Tensor, log_prob: Tensor, attention: Tensor | None, n_best: int
) -> list[list[Hypothesis]]:
    """(B, K, T) ids -> words. A beam that found fewer captions than asked leaves -inf, which is left out."""
    ids, totals = words.tolist(), log_prob.tolist()
    looks = None if attention is None else attention.float().cpu().numpy()
    found = []
    for b, of_image in enumerate(ids):
        hypotheses = []
        for k, tokens in enumerate(of_image[:n_best]):
            if totals[b][k] == -float("inf"):
                continue
            said = tuple(policy.codec.words(tokens))
            look = None if looks is None else looks[b, k, : len(said)]
            hypotheses.append(Hypothesis(said, totals[b][k], look))
        found.append(hypotheses)
    return found
