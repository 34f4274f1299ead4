"""Batched beam search over any policy, plain or in diverse groups.

Each step ranks every extension of an image's K live captions. Among the best K, those that end leave for the
pool of finished captions; the best K that do not end live on. All images move together, sharing their memory.

When is an image done? A score is log_prob / length^alpha, with alpha >= 0. A live caption has log_prob L <= 0
that no more words can raise, and the divisor is largest at the full length T: what becomes of it scores at
most L / T^alpha. Once the pool holds K captions and that bound, for the best live caption, is not above the
worst of them, nothing can come in any more.

Diverse groups (Vijayakumar et al. 2018, https://arxiv.org/abs/1610.02424) are searches of K / groups captions
each, done by the same rule. The penalty decides which words are tried; log_prob and score never contain it.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from rlcap.contracts import Memory, Policy, caption_mask
from rlcap.decoding.constraints import Constraints, constrain
from rlcap.errors import ConfigError

ASK_EVERY = 4  # words between two questions "is all done?" on an accelerator: each makes the host wait


@dataclass(frozen=True)
class Beams:
    """The K best captions of each image: the finished ones, best first, then those cut at the full length.

    Where fewer than K different captions were found, score and log_prob are -inf and the words all padding.
    """

    words: Tensor  # (B, K, T), padding behind the end token
    log_prob: Tensor  # (B, K), of the whole caption under the policy, its end token included
    score: Tensor  # (B, K): log_prob / length^alpha, by which they are ranked
    finished: Tensor  # (B, K) bool: it ended by itself (of a codec without an end token: always)
    attention: Tensor | None = None  # (B, K, T, R), 0 behind the end token, on request


@dataclass(frozen=True)
class _Captions:
    """W captions of each of M searches (images, or groups of images), as they stand."""

    log_prob: Tensor  # (M, W); -inf: there is no such caption
    score: Tensor  # (M, W)
    words: Tensor  # (M, W, T)


@dataclass(frozen=True)
class _Extensions:
    """Captions and the word that each is extended by."""

    log_prob: Tensor  # (M, W), that word included
    parent: Tensor  # (M, W): which of the search's live captions
    word: Tensor  # (M, W)


@torch.no_grad()
def beam_search(
    policy: Policy,
    memory: Memory,
    *,
    images: int,
    beams: int,
    length: int,
    constraints: Constraints,
    length_normalisation: float = 0.0,  # alpha; 0: the plain sum
    groups: int = 1,
    diversity: float = 0.0,  # nats taken off a word for each time that an earlier group says it at this step
    want: Collection[str] = (),  # "attention"
) -> Beams:
    """The `beams` best captions, of at most `length` words, of each image that `memory` holds."""
    _check(beams, length, length_normalisation, groups, diversity)
    codec, width, searches = policy.codec, beams // groups, images * groups
    device = next(policy.parameters()).device
    said = torch.full((images * beams, length), codec.pad, device=device)  # rows: image, group, caption
    live = torch.full((searches, width), -torch.inf, device=device)
    live[:, 0] = 0.0  # one empty caption, not the same one K times
    nothing = torch.full_like(live, -torch.inf)
    pool = _Captions(nothing, nothing, _per_search(said, width))
    first_row = torch.arange(searches, device=device)[:, None] * width
    state = policy.start(memory, 1, length)  # one row an image, until the first words differ
    word = torch.full((images,), codec.start, device=device)

    for t in range(length):
        step = policy.step(word, state, memory)
        logits = step.logits.float()
        if t == 0:
            logits = logits.repeat_interleave(beams, 0)
        scores = constrain(logits, said, t, codec, constraints)
        normaliser = logits.logsumexp(-1).view(searches, width)
        going, ending = _extend(_per_search(scores, width), normaliser, live, codec.end, groups, diversity)
        if codec.end is not None:
            ended = said[(first_row + ending.parent).flatten()]
            ended[:, t] = codec.end
            score = ending.log_prob / (t + 1) ** length_normalisation
            pool = _best(_join(pool, _Captions(ending.log_prob, score, _per_search(ended, width))), width)
        live = _unless_done(going.log_prob, pool, length**length_normalisation)
        parents, word = (first_row + going.parent).flatten(), going.word.flatten()
        said = said[parents]
        said[:, t] = word
        if (device.type == "cpu" or t % ASK_EVERY == ASK_EVERY - 1) and bool((live == -torch.inf).all()):
            break
        if t + 1 < length:
            state = policy.select(step.state, parents if t else parents // beams)

    cut = _Captions(live, live / length**length_normalisation, _per_search(said, width))
    found = _n_best(pool, cut, images, beams, codec.pad, has_end=codec.end is not None)
    if "attention" not in want:
        return found
    return Beams(found.words, found.log_prob, found.score, found.finished, _attention(policy, memory, found))


def _check(beams: int, length: int, alpha: float, groups: int, diversity: float) -> None:
    if beams < 1 or length < 1 or groups < 1:
        raise ConfigError(f"{beams} beams in {groups} groups, {length} words: give at least 1 of each")
    if beams % groups:
        raise ConfigError(f"{beams} beams do not divide into {groups} groups: give a multiple of {groups}")
    if alpha < 0 or diversity < 0:
        raise ConfigError(f"length_normalisation {alpha} and diversity {diversity} must be 0 or more")


def _per_search(rows: Tensor, width: int) -> Tensor:
    """(M·W, X) -> (M, W, X)."""
    return rows.view(-1, width, rows.shape[1])


def _extend(
    scores: Tensor,  # (M, W, V), of the next word, -inf where it may not come
    normaliser: Tensor,  # (M, W): scores minus this are log-probabilities
    live: Tensor,  # (M, W)
    end: int | None,
    groups: int,
    diversity: float,
) -> tuple[_Extensions, _Extensions]:
    """The best extensions of each search: those that go on, and those that end here (-inf: does not)."""
    if groups == 1 or diversity == 0:
        return _extend_alike(scores, scores, normaliser, live, end)
    heard = torch.zeros_like(scores[::groups, 0])  # (B, V): nats to take off
    parts = []
    for g in range(groups):  # each group hears the ones before it
        own = scores[g::groups]
        part = _extend_alike(own, own - heard[:, None], normaliser[g::groups], live[g::groups], end)
        heard.scatter_add_(1, part[0].word, diversity * part[0].log_prob.isfinite())
        parts.append(part)
    going, ending = zip(*parts, strict=True)
    return _interleave(going), _interleave(ending)


def _extend_alike(
    scores: Tensor, preferred: Tensor, normaliser: Tensor, live: Tensor, end: int | None
) -> tuple[_Extensions, _Extensions]:
    """As `_extend`, ranked by `preferred` (M, W, V) for `scores`, which give the log-probabilities.

    Of one caption's words, the best W + 1 suffice: one of them may be the end.
    """
    width, vocabulary = scores.shape[1:]
    best, words = preferred.topk(min(width + 1, vocabulary))
    ranked = live[..., None] + (best - normaliser[..., None])
    place = ranked.flatten(1).topk(2 * width).indices  # at most W of these end
    parent = place // words.shape[2]
    word = words.flatten(1).gather(1, place)
    score = scores.flatten(1).gather(1, parent * vocabulary + word)
    log_prob = live.gather(1, parent) + (score - normaliser.gather(1, parent))
    ends = torch.zeros_like(word, dtype=torch.bool) if end is None else word == end
    onward = ends.byte().sort(dim=1, stable=True).indices[:, :width]  # the first W that do not end, in their order
    going = _Extensions(log_prob.gather(1, onward), parent.gather(1, onward), word.gather(1, onward))
    leaving = log_prob[:, :width].masked_fill(~ends[:, :width], -torch.inf)
    return going, _Extensions(leaving, parent[:, :width], word[:, :width])


def _interleave(groups: tuple[_Extensions, ...]) -> _Extensions:
    """One for each group, images first -> one, searches (image, group) first."""

    def woven(name: str) -> Tensor:
        return torch.stack([getattr(group, name) for group in groups], 1).flatten(0, 1)

    return _Extensions(woven("log_prob"), woven("parent"), woven("word"))


def _join(first: _Captions, second: _Captions) -> _Captions:
    return _Captions(
        torch.cat((first.log_prob, second.log_prob), 1),
        torch.cat((first.score, second.score), 1),
        torch.cat((first.words, second.words), 1),
    )


def _best(captions: _Captions, count: int) -> _Captions:
    """The `count` best of each search, best first; of equals, the ones that came first."""
    score, order = captions.score.sort(dim=1, descending=True, stable=True)
    score, order = score[:, :count], order[:, :count]
    return _Captions(captions.log_prob.gather(1, order), score, _rows(captions.words, order))


def _rows(words: Tensor, order: Tensor) -> Tensor:
    """(M, W, T) and (M, K) places in W -> (M, K, T)."""
    return words.gather(1, order[..., None].expand(-1, -1, words.shape[2]))


def _unless_done(log_prob: Tensor, pool: _Captions, largest_divisor: float) -> Tensor:
    """Live log-probabilities (M, W), -inf throughout a search whose pool nothing can improve any more."""
    bound = log_prob.amax(1, keepdim=True) / largest_divisor
    return log_prob.masked_fill(bound <= pool.score[:, -1:], -torch.inf)


def _n_best(pool: _Captions, cut: _Captions, images: int, beams: int, pad: int, has_end: bool) -> Beams:
    """What the searches of each image found together, each caption once."""
    both = _join(pool, cut)
    width = pool.score.shape[1]
    finished = torch.zeros_like(both.score, dtype=torch.bool)
    finished[:, : width if has_end else 2 * width] = True
    score, log_prob = both.score.view(images, -1), both.log_prob.view(images, -1)
    finished, words = finished.view(images, -1), both.words.view(images, 2 * beams, -1)
    if pool.score.shape[0] > images:  # groups may have found the same caption
        same = (words[:, :, None] == words[:, None]).all(-1) & (score > -torch.inf)[:, None]
        score = score.masked_fill(same.tril(-1).any(-1), -torch.inf)
    order = score.sort(dim=1, descending=True, stable=True).indices
    by_finished = (finished & (score > -torch.inf)).gather(1, order).byte()
    order = order.gather(1, by_finished.sort(dim=1, descending=True, stable=True).indices)[:, :beams]
    score = score.gather(1, order)
    nothing = score == -torch.inf
    return Beams(
        words=_rows(words, order).masked_fill(nothing[..., None], pad),
        log_prob=log_prob.gather(1, order).masked_fill(nothing, -torch.inf),
        score=score,
        finished=finished.gather(1, order) & ~nothing,
    )


def _attention(policy: Policy, memory: Memory, found: Beams) -> Tensor | None:
    """(B, K, T, R), or None of a policy without: the steps to the captions that were found, taken again.

    A few rows once more cost less than to carry every live caption's maps through the search.
    """
    images, beams, length = found.words.shape
    counts = caption_mask(found.words, policy.codec.end) & (found.score > -torch.inf)[..., None]
    state = policy.start(memory, beams, length)
    word = torch.full_like(found.words[..., 0].flatten(), policy.codec.start)
    maps = []
    for t in range(length):
        step = policy.step(word, state, memory, want=("attention",))
        if step.attention is None:
            return None
        maps.append(step.attention)
        state, word = step.state, found.words[..., t].flatten()
    return torch.stack(maps, 1).view(images, beams, length, -1) * counts[..., None]
