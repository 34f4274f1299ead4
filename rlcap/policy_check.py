"""Does a policy keep its contract? Tried on tiny random features, in evaluation mode, where dropout is off."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlcap.components import check_arguments, find
from rlcap.contracts import Features, FeatureShape, Memory, Policy, Scores, State, Step, tree_map
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import ComponentError, RlcapError

IMAGES, SAMPLES, LENGTH = 3, 4, 5
SHAPE = FeatureShape(regions=6, width=8, grid=(2, 3))
ALIKE = 1e-4  # of log-probabilities in float32, computed in batches of other sizes
WORDS = ["a", "red", "ball", "and", "blue", "box", "on", "the", "grass"]


@dataclass
class PolicyCheck:
    """What was found; a policy is sound if there are no problems."""

    name: str
    parameters: int = 0
    passed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"policy:   {self.name}, {self.parameters:,} parameters"
        yield from (f"checked:  {text}" for text in self.passed)
        yield from (f"note:     {text}" for text in self.notes)
        yield from (f"problem:  {text}" for text in self.problems)
        count = len(self.problems)
        yield f"not ok: {count} problem{'s' if count > 1 else ''} to mend" if count else "ok: no problem was found"


def check_policy(name: str, settings: Mapping[str, Any]) -> PolicyCheck:
    """Tries the policy that a recipe would name so. What keeps it from being made is an error."""
    factory = find("policy", name, [Path.cwd()])
    arguments = check_arguments(factory, settings, f"policy '{name}'")
    torch.manual_seed(0)
    try:
        policy = factory(Vocabulary(WORDS), SHAPE, **arguments)
    except RlcapError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise ComponentError(f"policy '{name}': cannot be made: {type(error).__name__}: {said}") from error
    if not isinstance(policy, Policy):
        raise ComponentError(f"policy '{name}': is a {type(policy).__name__}; let it inherit rlcap.contracts.Policy")
    found = PolicyCheck(name, sum(each.numel() for each in policy.parameters()))
    _Trial(policy.eval(), found).run()
    return found


class _Trial:
    def __init__(self, policy: Policy, found: PolicyCheck) -> None:
        self.policy, self.found = policy, found
        self.codec = policy.codec
        generator = torch.Generator().manual_seed(0)
        mask = torch.ones(IMAGES, SHAPE.regions, dtype=torch.bool)
        mask[1, -2:] = False  # the second image has two regions fewer
        values = torch.randn(IMAGES, SHAPE.regions, SHAPE.width, generator=generator)
        self.features = Features(values * mask[..., None], mask, SHAPE.grid)
        legal = [word for word in range(self.codec.size) if word not in (*self.codec.banned, self.codec.end)]
        at = torch.randint(len(legal), (IMAGES, SAMPLES, LENGTH), generator=generator)
        self.words = torch.tensor(legal)[at]
        self.coins = torch.rand(IMAGES * SAMPLES, LENGTH, policy.coins, generator=generator)

    def run(self) -> None:
        """All checks; where the first one fails, the others would only repeat it."""
        checks = {
            "shapes of memory, state and step": self._shapes,
            "score says what step by step does": self._score,
            "earlier words do not hear of later ones": self._causal,
            "an image is alone in its batch": self._alone,
            "regions that are not there do not count": self._padding,
            "select moves whole rows": self._select,
            "rows may stand at different words": self._staggered,
            "choices are drawn from uniforms alone, and replayed": self._choices,
            "gradients reach the parameters": self._gradients,
        }
        for what, check in checks.items():
            try:
                if check == self._gradients:  # a bound method is a new object each time
                    check()
                else:
                    with torch.no_grad():
                        check()
                self.found.passed.append(what)
            except Exception as error:  # whatever somebody's policy raises is a finding
                kind = "" if isinstance(error, AssertionError | RlcapError) else f"{type(error).__name__}: "
                self.found.problems.append(f"{what}: {kind}{' '.join(str(error).split())}")
                if check == self._shapes:
                    return

    def _shapes(self) -> None:
        memory = self._memory()
        rows = IMAGES * SAMPLES
        for leaf in leaves(memory):
            assert len(leaf) == IMAGES, f"memory holds {tuple(leaf.shape)}: images come first, once each ({IMAGES})"
        state = self.policy.start(memory, SAMPLES, LENGTH)
        before = [(leaf.shape, leaf.dtype) for leaf in leaves(state)]
        for shape, _ in before:
            assert shape[:1] == (rows,), f"state holds {tuple(shape)}: rows come first ({rows})"
        step = self._step(self._start(rows), state, memory, 0, ["attention"])
        wanted = (rows, self.codec.size)
        assert step.logits.shape == wanted, f"logits are {tuple(step.logits.shape)}, not {wanted}"
        assert step.logits.isfinite().all(), "logits are not finite: forbidden words are not the policy's business"
        after = [(leaf.shape, leaf.dtype) for leaf in leaves(step.state)]
        assert after == before, f"a step turned the state {before} into {after}: its shapes are fixed"
        if step.attention is None:
            self.found.notes.append("gives no attention, so there are no pictures of it")
        else:
            looks = tuple(step.attention.shape)
            assert looks == (rows, SHAPE.regions), f"attention is {looks}, not {(rows, SHAPE.regions)}"

    def _score(self) -> None:
        stepped, choices = self._stepped(self.words)
        scores = self._scored(self.words, choices)
        self._equal(scores.log_prob, stepped, "log_prob")
        asked = self.policy.score(self._memory(), self.words, choices=choices, want=["entropy", "logits"])
        assert asked.entropy is not None, "entropy was wanted, and None given"
        assert asked.logits is not None, "logits were wanted, and None given"

    def _causal(self) -> None:
        _, choices = self._stepped(self.words)
        other = self.words.clone()
        other[..., -1] = self.words[..., -1].roll(1, -1)
        here, there = (self._scored(words, choices).log_prob[..., :-1] for words in (self.words, other))
        self._equal(there, here, "log_prob before a word that was exchanged")

    def _alone(self) -> None:
        together, choices = self._stepped(self.words)
        for image in range(IMAGES):
            memory = self.policy.remember(self._one(image))
            one = None if choices is None else choices[image : image + 1]
            self._equal(
                self.policy.score(memory, self.words[image : image + 1], choices=one).log_prob,
                together[image : image + 1],
                f"log_prob of image {image} without the others",
            )

    def _padding(self) -> None:
        mask = self.features.mask[..., None]
        loud = Features(self.features.values.masked_fill(~mask, 100.0), self.features.mask, SHAPE.grid)
        _, choices = self._stepped(self.words)
        here = self._scored(self.words, choices).log_prob
        there = self.policy.score(self.policy.remember(loud), self.words, choices=choices).log_prob
        self._equal(there, here, "log_prob with other values where the mask is False")

    def _select(self) -> None:
        memory, state = self._begun()
        order = torch.arange(IMAGES * SAMPLES).view(IMAGES, SAMPLES).flip(1).flatten()
        said = self.words[..., 1].flatten()
        plain = self._step(said, state, memory, 2).logits[order]
        moved = self._step(said[order], self.policy.select(state, order), memory, 2, order=order).logits
        self._equal(moved, plain, "logits after select")

    def _staggered(self) -> None:
        """Of each image's samples, the odd ones are one word ahead."""
        memory, state = self._begun()
        said = self.words[..., 1].flatten()
        ahead = self._step(said, state, memory, 2).state
        odd = torch.arange(IMAGES * SAMPLES) % 2 == 1

        def mixed(one: Tensor, other: Tensor) -> Tensor:
            return torch.where(odd.view(-1, *[1] * (one.dim() - 1)), one, other)

        merged = iter([mixed(*pair) for pair in zip(leaves(ahead), leaves(state), strict=True)])
        both = tree_map(lambda _: next(merged), state)
        after = self._step(said, both, memory, 3).logits
        self._equal(after[odd], self._step(said, ahead, memory, 3).logits[odd], "logits of rows that are ahead")
        self._equal(after[~odd], self._step(said, state, memory, 3).logits[~odd], "logits of rows that are behind")

    def _choices(self) -> None:
        memory, state = self._begun()
        said = self.words[..., 1].flatten()
        once, again = (self._step(said, state, memory, 2) for _ in range(2))
        self._equal(again.logits, once.logits, "logits of the same step once more")
        if self.policy.coins:
            assert once.choices is not None, f"coins={self.policy.coins}, and step gives no choices"
            assert again.choices is not None
            assert (once.choices == again.choices).all(), "equal uniforms, other choices"
            replayed = self.policy.step(said, state, memory, choices=once.choices)
            self._equal(replayed.logits, once.logits, "logits with choices replayed")

    def _gradients(self) -> None:
        _, choices = self._stepped(self.words)
        scores = self.policy(self.features, self.words, choices=choices)
        assert scores.log_prob.requires_grad, "log_prob has no gradient"
        total = -scores.log_prob.sum()
        if scores.choice_log_prob is not None:
            total = total - scores.choice_log_prob.sum()
        self.policy.zero_grad()
        total.backward()
        wanting = [name for name, each in self.policy.named_parameters() if each.requires_grad and each.grad is None]
        self.policy.zero_grad()
        if wanting:
            self.found.notes.append(f"no gradient reaches {', '.join(wanting[:5])}{' …' if len(wanting) > 5 else ''}")

    def _memory(self) -> Memory:
        return self.policy.remember(self.features)

    def _one(self, image: int) -> Features:
        part = slice(image, image + 1)
        return Features(self.features.values[part], self.features.mask[part], SHAPE.grid)

    def _start(self, rows: int) -> Tensor:
        return torch.full((rows,), self.codec.start)

    def _step(
        self, said: Tensor, state: State, memory: Memory, at: int, want: Any = (), order: Tensor | None = None
    ) -> Step:
        coins = self.coins[:, at] if order is None else self.coins[order, at]
        return self.policy.step(said, state, memory, uniforms=coins if self.policy.coins else None, want=want)

    def _begun(self) -> tuple[Memory, State]:
        """The memory, and all rows behind their first word, so that no two are alike."""
        memory = self._memory()
        state = self.policy.start(memory, SAMPLES, LENGTH)
        for at, said in enumerate((self._start(IMAGES * SAMPLES), self.words[..., 0].flatten())):
            state = self._step(said, state, memory, at).state
        return memory, state

    @torch.no_grad()
    def _stepped(self, words: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, N, T) log-probabilities by `step` alone, and the choices that were drawn."""
        memory = self._memory()
        state = self.policy.start(memory, SAMPLES, LENGTH)
        said, log_probs, choices = self._start(IMAGES * SAMPLES), [], []
        for at in range(LENGTH):
            step = self._step(said, state, memory, at)
            state, said = step.state, words[..., at].flatten()
            log_probs.append(step.logits.float().log_softmax(-1).gather(-1, said[:, None])[:, 0])
            if step.choices is not None:
                choices.append(step.choices)
        drawn = torch.stack(choices, 1).unflatten(0, (IMAGES, SAMPLES)) if choices else None
        return torch.stack(log_probs, 1).unflatten(0, (IMAGES, SAMPLES)), drawn

    def _scored(self, words: Tensor, choices: Tensor | None) -> Scores:
        return self.policy.score(self._memory(), words, choices=choices)

    def _equal(self, got: Tensor, wanted: Tensor, what: str) -> None:
        assert got.shape == wanted.shape, f"{what}: {tuple(got.shape)}, not {tuple(wanted.shape)}"
        gap = float((got - wanted).abs().max())
        assert gap <= ALIKE * max(1.0, float(wanted.abs().max())), f"{what}: differs by up to {gap:.4g}"


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in the order of tree_map."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    tree_map(note, tree)
    return found
