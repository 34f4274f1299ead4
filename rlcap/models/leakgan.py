"""LeakGAN's generator (Guo et al. 2018, https://arxiv.org/abs/1709.08624), and a captioner made of it.

A discriminator leaks what it sees of the words so far. The Manager turns that into a goal: a direction in which the
leaked feature should move. The Worker writes the words, each under the last goals.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.config import NotNegative, Positive, Rate
from rlcap.contracts import Codec, Features, FeatureShape, Memory, Policy, Scores, State, Step, caption_mask
from rlcap.models.attention import AdditiveAttention, narrowing
from rlcap.models.discriminators import Discriminating, make_discriminator
from rlcap.models.sru import SRU


class LeakGAN(Policy):
    """Manager and Worker are SRUs (Lei et al. 2018). Over images, where the Worker looks follows from its own output.

    Before each word, with f the Worker's last output:
        goal     g = Manager(leaked), of length 1; "centred" takes out a running mean first     (eq. 2-3)
        sum      w = ψ(the last `horizon` goals, this one among them), `goal` numbers           (eq. 4)
        look     e = W_e ReLU(L_img a + L_lang f + b), context = σ(f_β(f)) Σ softmax(e) a; at first the mean of all a
        word     logits = O · w + b, with O = W [f, 1] of shape (V, `goal`), f = Worker(word, context)  (eq. 5-6)

    No gradient goes from attention into the Worker, from the words into the Manager, or from either into the
    discriminator, which belongs to the policy (its weights are saved with it) and is not among its parameters. Without
    a Manager (`manager: 0`) the Worker writes alone, as SeqGAN's generator, and nothing leaks. Only the trainer
    `adversarial` teaches the Manager; under any other its goals stay as they are.
    """

    mean_goal: Tensor

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        embedding: Positive = 128,
        hidden: Positive = 256,  # of the Worker
        layers: Positive = 1,  # of the Worker
        manager: NotNegative = 256,  # hidden units of the Manager; 0: there is none
        goal: Positive = 16,
        horizon: Positive = 4,
        goals: Literal["unit", "centred", "raw"] = "unit",
        attention: Positive = 256,
        project: NotNegative = 0,
        dropout: Rate = 0.2,
        discriminator: Discriminating = Discriminating(),  # noqa: B008  frozen
    ) -> None:
        super().__init__()
        self.codec, self.horizon, self.goals = codec, horizon, goals
        self.manages, self.goal = manager > 0, goal
        self.discriminator = make_discriminator(codec, shape, discriminator)
        if self.manages:
            leaked = self.discriminator.width
            self.manager = _sru(leaked, manager)
            self.direct = nn.Linear(manager, leaked)
            self.register_buffer("mean_goal", torch.zeros(leaked))
            self.embed_goal = nn.Linear(leaked, goal, bias=False)  # ψ
        width = project or shape.width
        self.sees = shape.regions > 0
        if self.sees:
            self.project = narrowing(shape.width, project, dropout)
            self.attend = AdditiveAttention(width, hidden, attention, torch.relu)
            self.gate = nn.Linear(hidden, 1)
        self.embed = nn.Embedding(codec.size, embedding)
        self.worker = _sru(embedding + (width if self.sees else 0), hidden, layers, dropout)
        self.output = nn.Linear((hidden + 1) * goal if manager else hidden, codec.size)
        self.dropout = nn.Dropout(dropout)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("discriminator."):
                nn.init.xavier_uniform_(module.weight)
        nn.init.normal_(self.embed.weight, std=embedding**-0.5)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """All but the discriminator's, which a trainer of its own moves."""
        its_own = f"{prefix}{'.' if prefix else ''}discriminator."
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            if not name.startswith(its_own):
                yield name, parameter

    def train(self, mode: bool = True) -> "LeakGAN":
        """What leaks is without dropout."""
        super().train(mode)
        self.discriminator.eval()
        return self

    def remember(self, features: Features) -> Memory:
        if not self.sees:
            return {"values": features.values}
        values = self.project(features.values)
        return {
            "values": values,
            "keys": self.attend.keys(values),
            "mask": features.mask,
        }

    def start(self, memory: Memory, n: int, length: int) -> State:
        rows, like = memory["values"].shape[0] * n, self.output.weight
        state: dict[str, State] = {"worker": self.worker.start(rows)}
        if self.sees:
            state["said"] = like.new_zeros(rows, self.worker.width)
            state["begun"] = torch.zeros(rows, dtype=torch.bool, device=like.device)
        if self.manages:
            state["leak"] = self.discriminator.start(rows)
            state["manager"] = self.manager.start(rows)
            state["goals"] = like.new_zeros(rows, self.horizon, self.goal)
        return state

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
        given, after, weights, total = self.dropout(self.embed(words)), dict(state), None, None
        if self.manages:
            with torch.no_grad():
                leaked, after["leak"] = self.discriminator.extend(words, state["leak"])
            directed, after["manager"] = self.manager.step(leaked, state["manager"])
            goal = self.embed_goal(self._goals(directed).detach())
            after["goals"] = torch.cat((state["goals"][:, 1:], goal[:, None]), 1)
            total = after["goals"].sum(1)
        if self.sees:
            context, weights = self._look(state["said"], state["begun"], memory)
            given = torch.cat((given, context), -1)
            after["begun"] = torch.ones_like(state["begun"])
        said, after["worker"] = self.worker.step(given, state["worker"])
        if self.sees:
            after["said"] = said
        return Step(self._say(said, total), after, attention=weights if "attention" in want else None)

    def score(
        self,
        memory: Memory,
        words: Tensor,
        *,
        choices: Tensor | None = None,
        uniforms: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Scores:
        """As the loop over `step`, with leaks, goals and (without images) the Worker's words all at once.

        The extras are `goals` (B, N, T, F), with gradient for the Manager, and `leaked` (B, N, T + 1, F).
        """
        captions = words.flatten(0, 1)
        before = F.pad(captions[:, :-1], (1, 0), value=self.codec.start)
        total, extras = None, {}
        if self.manages:
            with torch.no_grad():
                leaked = self.discriminator.leak(captions)
            directed, _ = self.manager(leaked[:, :-1])
            goals = self._goals(directed)
            if self.goals == "centred" and torch.is_grad_enabled():
                self._learn_mean(directed, captions)
            embedded = F.pad(self.embed_goal(goals.detach()), (0, 0, self.horizon - 1, 0))
            total = embedded.unfold(1, self.horizon, 1).sum(-1)  # (rows, T, goal)
            extras = {"goals": goals, "leaked": leaked}
        said, weights = self._work(memory, self.dropout(self.embed(before)), words.shape[1])
        scores = Scores.of_logits(self._say(said, total), words, want, weights)
        if "extras" not in want:
            return scores
        return replace(scores, extras={key: value.unflatten(0, words.shape[:2]) for key, value in extras.items()})

    def _work(self, memory: Memory, given: Tensor, n: int) -> tuple[Tensor, Tensor | None]:
        """The Worker's outputs (rows, T, H) for words (rows, T, E), and where it looked (rows, T, R)."""
        if not self.sees:
            return self.worker(given)[0], None
        state = self.start(memory, n, given.shape[1])
        cells, said, begun = state["worker"], state["said"], state["begun"]
        outputs, looks = [], []
        for word in given.unbind(1):
            context, weights = self._look(said, begun, memory)
            said, cells = self.worker.step(torch.cat((word, context), -1), cells)
            begun = torch.ones_like(begun)
            outputs.append(said)
            looks.append(weights)
        return torch.stack(outputs, 1), torch.stack(looks, 1)

    def _goals(self, directed: Tensor) -> Tensor:
        """Of what the Manager says, (…, M) -> (…, F)."""
        goals: Tensor = self.direct(directed)
        if self.goals == "centred":
            goals = goals - self.mean_goal.to(goals.dtype)
        return goals if self.goals == "raw" else F.normalize(goals, dim=-1)

    @torch.no_grad()
    def _learn_mean(self, directed: Tensor, words: Tensor) -> None:
        """From goals (rows, T, …) that get a gradient, a tenth at a time."""
        mask = caption_mask(words, self.codec.end)[..., None]
        goals = self.direct(directed).float().masked_fill(~mask, 0)
        self.mean_goal.lerp_((goals.sum((0, 1)) / mask.sum()).to(self.mean_goal), 0.1)

    def _look(self, said: Tensor, begun: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """What is seen (rows, D), and the weights of the regions (rows, R)."""
        said, mask = said.detach(), memory["mask"]
        energies = self.attend.energies(said.unflatten(0, (len(mask), -1)), memory["keys"], mask)  # (B, N, R)
        even = torch.zeros_like(energies).masked_fill(~mask[:, None], -torch.inf)
        weights = torch.where(begun.view(len(mask), -1, 1), energies, even).softmax(-1)
        seen = torch.bmm(weights, memory["values"]).flatten(0, 1)
        return torch.sigmoid(self.gate(said)) * seen, weights.flatten(0, 1)

    def _say(self, said: Tensor, total: Tensor | None) -> Tensor:
        """(…, H), and the sum of the goals (…, goal) -> logits (…, V). O · w is one map of the outer product."""
        said = self.dropout(said)
        if total is not None:
            said = (F.pad(said, (0, 1), value=1.0)[..., None] * total[..., None, :]).flatten(-2)
        logits: Tensor = self.output(said)
        return logits


def _sru(inputs: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> SRU:
    """The captioner's: without recurrent weights in the gates, with a tanh and a projected highway; orthogonal."""
    made = SRU(inputs, hidden, layers, dropout=dropout, v1=True, activation="tanh", project_highway=True)
    for name, weight in made.named_parameters():
        if name.endswith(".weight"):
            for matrix in weight.detach().chunk(len(weight) // hidden):
                nn.init.orthogonal_(matrix)
    return made
