"""The soft-attention LSTM of "Show, Attend and Tell" (Xu et al. 2015, https://arxiv.org/abs/1502.03044)."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.config import NotNegative, Positive, Rate
from rlcap.contracts import (
    Codec,
    Features,
    FeatureShape,
    Memory,
    Policy,
    Scores,
    State,
    Step,
    at_least_float32,
    entropy_of,
)
from rlcap.models.attention import AdditiveAttention


class SoftAttention(Policy):
    """At each word: look (weights over the regions), gate what was seen, move the LSTM, say a word.

    The numbers in the comments are the paper's equations. The deep output has a tanh, as in the authors' own code.
    `project` narrows wide features first, once an image: what each word costs falls with it. 0 is the paper's way.
    """

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        hidden: Positive = 512,
        embedding: Positive = 512,
        attention: Positive = 512,
        project: NotNegative = 0,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.codec = codec
        narrowed = (nn.Linear(shape.width, project), nn.ReLU(), nn.Dropout(dropout)) if project else ()
        self.project = nn.Sequential(*narrowed)
        width = project or shape.width
        self.attend = AdditiveAttention(width, hidden, attention)
        self.first_state = nn.Linear(width, 2 * hidden)
        self.gate = nn.Linear(hidden, 1)  # beta, section 4.2.1
        self.embed = nn.Embedding(codec.size, embedding)
        self.word_to_gates = nn.Linear(embedding, 4 * hidden)
        self.seen_to_gates = nn.Linear(width, 4 * hidden, bias=False)
        self.state_to_gates = nn.Linear(hidden, 4 * hidden, bias=False)
        self.state_to_output = nn.Linear(hidden, embedding)
        self.seen_to_output = nn.Linear(width, embedding, bias=False)
        self.output = nn.Linear(embedding, codec.size)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=embedding**-0.5)
        with torch.no_grad():
            self.word_to_gates.bias[hidden : 2 * hidden] = 1.0  # the forget gate starts open

    def remember(self, features: Features) -> Memory:
        values, mask = self.project(features.values), features.mask
        share = mask / mask.sum(-1, keepdim=True)
        mean = torch.bmm(share[:, None].to(values.dtype), values)[:, 0]
        return {
            "values": values,
            "keys": self.attend.keys(values),
            "mask": mask,
            "first": torch.tanh(self.first_state(mean)),
        }

    def start(self, memory: Memory, n: int, length: int) -> State:
        hidden, cell = memory["first"].repeat_interleave(n, 0).chunk(2, -1)
        return {"hidden": hidden, "cell": cell}

    def step(
        self,
        words: Tensor,
        state: State,
        memory: Memory,
        *,
        uniforms: Tensor | None = None,
        choices: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Step:
        embedded = self.dropout(self.embed(words))
        hidden, cell, seen, weights = self._move(self.word_to_gates(embedded), state["hidden"], state["cell"], memory)
        logits = self._say(embedded, hidden, seen)
        attention = weights if "attention" in want else None
        return Step(logits, {"hidden": hidden, "cell": cell}, attention=attention)

    def score(
        self,
        memory: Memory,
        words: Tensor,
        *,
        choices: Tensor | None = None,
        uniforms: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Scores:
        """As the loop over `step`, with all that does not depend on the state done for every word at once."""
        images, n, length = words.shape
        before = F.pad(words[..., :-1], (1, 0), value=self.codec.start).flatten(0, 1)  # (rows, T)
        embedded = self.dropout(self.embed(before))
        gates = self.word_to_gates(embedded)
        state = self.start(memory, n, length)
        hidden, cell = state["hidden"], state["cell"]
        hiddens, seens, attentions = [], [], []
        for t in range(length):
            hidden, cell, seen, weights = self._move(gates[:, t], hidden, cell, memory)
            hiddens.append(hidden)
            seens.append(seen)
            attentions.append(weights)
        logits = self._say(embedded, torch.stack(hiddens, 1), torch.stack(seens, 1)).unflatten(0, (images, n))
        log_prob = -F.cross_entropy(at_least_float32(logits).flatten(0, 2), words.flatten(), reduction="none")
        extra: dict[str, Any] = {}
        if "entropy" in want:
            extra["entropy"] = entropy_of(at_least_float32(logits).log_softmax(-1))
        if "logits" in want:
            extra["logits"] = logits
        if "attention" in want:
            extra["attention"] = torch.stack(attentions, 1).unflatten(0, (images, n))
        return Scores(log_prob.view_as(words), **extra)

    def _move(
        self, word_gates: Tensor, hidden: Tensor, cell: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Look with the old state, then the LSTM (eq. 1-3), all (rows, …)."""
        images = memory["values"].shape[0]
        per_image = hidden.unflatten(0, (images, -1))
        seen, weights = self.attend(per_image, memory["keys"], memory["values"], memory["mask"])  # eq. 4-6, 13
        seen = torch.sigmoid(self.gate(hidden)) * seen.flatten(0, 1)
        gates = word_gates + self.seen_to_gates(seen) + self.state_to_gates(hidden)
        into, forget, out, candidate = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + into.sigmoid() * candidate.tanh()
        return out.sigmoid() * cell.tanh(), cell, seen, weights.flatten(0, 1)

    def _say(self, embedded: Tensor, hidden: Tensor, seen: Tensor) -> Tensor:
        """The deep output (eq. 7), for (…, H)."""
        mixed = torch.tanh(embedded + self.state_to_output(hidden) + self.seen_to_output(seen))
        logits: Tensor = self.output(self.dropout(mixed))
        return logits
