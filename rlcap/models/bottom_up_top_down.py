"""The two-layer LSTM over image regions of "Bottom-Up and Top-Down Attention" (Anderson et al. 2018,
https://arxiv.org/abs/1707.07998, section 3.2)."""

from collections.abc import Collection

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
)
from rlcap.models.attention import AdditiveAttention, mean_region, narrowing
from rlcap.models.cells import LSTM


class BottomUpTopDown(Policy):
    """At each word: one LSTM decides where to look, a second one hears what was seen and says the word.

    The regions may be of any number, the absent ones masked. Both LSTMs start at zero. Dropout is on the words' and on
    the output's side, as in `soft_attention`; `project` narrows wide features likewise, and 0 is the paper's way.
    """

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        hidden: Positive = 1000,
        embedding: Positive = 1000,
        attention: Positive = 512,
        project: NotNegative = 0,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.codec = codec
        self.project = narrowing(shape.width, project, dropout)
        width = project or shape.width
        self.embed = nn.Embedding(codec.size, embedding)
        self.attention_lstm = LSTM(hidden)
        self.word_to_attention = nn.Linear(embedding, self.attention_lstm.width, bias=False)
        self.mean_to_attention = nn.Linear(width, self.attention_lstm.width, bias=False)
        self.language_to_attention = nn.Linear(hidden, self.attention_lstm.width, bias=False)
        self.attend = AdditiveAttention(width, hidden, attention)
        self.language_lstm = LSTM(hidden)
        self.seen_to_language = nn.Linear(width, self.language_lstm.width, bias=False)
        self.attention_to_language = nn.Linear(hidden, self.language_lstm.width, bias=False)
        self.output = nn.Linear(hidden, codec.size)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=embedding**-0.5)

    def remember(self, features: Features) -> Memory:
        values, mask = self.project(features.values), features.mask
        return {
            "values": values,
            "keys": self.attend.keys(values),
            "mask": mask,
            "mean": self.mean_to_attention(mean_region(values, mask)),
        }

    def start(self, memory: Memory, n: int, length: int) -> State:
        mean = memory["mean"]
        zeros = mean.new_zeros(mean.shape[0] * n, self.attention_lstm.hidden)
        return {"attention": (zeros, zeros), "language": (zeros, zeros)}

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
        state, weights = self._move(self._hear(words), state, memory)
        attention = weights if "attention" in want else None
        return Step(self._say(state["language"][0]), state, attention=attention)

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
        _, n, length = words.shape
        before = F.pad(words[..., :-1], (1, 0), value=self.codec.start).flatten(0, 1)  # (rows, T)
        heard = self._hear(before)
        state = self.start(memory, n, length)
        hiddens, attentions = [], []
        for t in range(length):
            state, weights = self._move(heard[:, t], state, memory)
            hiddens.append(state["language"][0])
            attentions.append(weights)
        return Scores.of_logits(self._say(torch.stack(hiddens, 1)), words, want, torch.stack(attentions, 1))

    def _hear(self, words: Tensor) -> Tensor:
        """(…) words -> (…, gates) of the attention LSTM."""
        gates: Tensor = self.word_to_attention(self.dropout(self.embed(words)))
        return gates

    def _move(self, heard: Tensor, state: State, memory: Memory) -> tuple[State, Tensor]:
        """One word of all rows (eq. 2-6): the new state, and where each row looked, (rows, R)."""
        images = memory["values"].shape[0]
        given = heard + self.language_to_attention(state["language"][0])
        given = (given.unflatten(0, (images, -1)) + memory["mean"][:, None]).flatten(0, 1)
        attention = self.attention_lstm(given, state["attention"])
        query = attention[0].unflatten(0, (images, -1))
        seen, weights = self.attend(query, memory["keys"], memory["values"], memory["mask"])
        given = self.seen_to_language(seen.flatten(0, 1)) + self.attention_to_language(attention[0])
        language = self.language_lstm(given, state["language"])
        return {"attention": attention, "language": language}, weights.flatten(0, 1)

    def _say(self, hidden: Tensor) -> Tensor:
        """(…, H) of the language LSTM -> (…, V)."""
        logits: Tensor = self.output(self.dropout(hidden))
        return logits
