"""A reward in five lines: a plain function over texts.

    def brevity(captions, references, *, limit: int = 10):
        return [min(1.0, limit / max(1, len(caption.split()))) for caption in captions]

It is called once for a batch, and gets by name what it asks for, each a list with one value a caption:

    captions        text: lower-case words with blanks between them, no end token
    references      list of such texts: what people said of the caption's image
    raw_references  the same as people wrote it
    images          the image, as the annotations name it
    features        float32 array (R, D) of the image's regions, read-only; (3, S, S) if it is seen as pixels
    ended           whether the caption came to its end, and was not cut

Its keyword-only parameters are settings of the recipe. It returns a list, array or tensor with a number for each.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlcap.config import AboveZero, NotNegative, Term
from rlcap.contracts import Candidates, Features, Reward
from rlcap.data.references import References
from rlcap.errors import ComponentError, ConfigError, did_you_mean
from rlcap.rewards.calling import CallError, Function, Inputs, call, shown
from rlcap.rewards.pool import Pool

INPUTS = ("captions", "references", "raw_references", "images", "features", "ended")
OURS = ("workers", "time_limit", "constant")
TAKEN = {*OURS, *(each.name for each in fields(Term))}  # keys that a recipe's reward has already
REMEMBERED = 100_000  # scores that a constant function need not be asked for again, about 30 MB


class FunctionReward(Reward):
    """What a function says of captions. `name` stands in messages: the reward's label, as a rule.

    workers: processes that share the captions of a batch (the function then sees a part of it); 0: none. The
    function must be importable then. time_limit: seconds that a batch may take; it needs a worker, for Python
    cannot interrupt itself. constant: the score depends on image and caption alone, so each pair is asked once.
    """

    def __init__(
        self,
        references: References,
        function: Function,
        name: str = "",
        /,
        *,
        workers: NotNegative = 0,
        time_limit: AboveZero | None = None,
        constant: bool = False,
        **settings: Any,
    ) -> None:
        self.name = name or _name_of(function)
        parameters = _parameters(function, self.name)
        _check_names(settings, parameters, self.name)
        if time_limit is not None and not workers:
            raise ConfigError(f"reward '{self.name}': time_limit needs worker processes; set workers to 1 or more")
        self.references, self.function, self.settings = references, function, settings
        self.asks = [name for name in parameters if name in INPUTS]
        self._pool = Pool(function, workers) if workers else None
        self._time_limit = time_limit
        self._known: dict[Any, float] | None = {} if constant else None  # the least recently used comes first

    def __call__(self, candidates: Candidates) -> Tensor:
        inputs = self._inputs(candidates)
        try:
            scores = self._asked(inputs) if self._known is None else self._looked_up(inputs, self._known)
        except CallError as refusal:
            raise ComponentError(f"reward '{self.name}': {refusal.text}") from refusal.__cause__
        made = torch.tensor(scores, dtype=self.references.dtype, device=candidates.words.device)
        return made.view(candidates.words.shape[:2])

    def _inputs(self, candidates: Candidates) -> dict[str, list[Any]]:
        """What is asked for, and what messages and memory need, one value a caption."""
        known, n = self.references, candidates.words.shape[1]
        words = candidates.words.flatten(0, 1).tolist()
        said = [ids[:length] for ids, length in zip(words, candidates.lengths.flatten().tolist(), strict=True)]
        rows: list[int] = candidates.images.tolist()
        inputs: dict[str, list[Any]] = {
            "captions": [" ".join(known.vocabulary.words(ids)) for ids in said],
            "images": _repeated([known.images[row] for row in rows], n),
            "ended": [known.vocabulary.end in ids for ids in said],
        }
        if "references" in self.asks:
            inputs["references"] = _repeated([[" ".join(words) for words in known.tokens[row]] for row in rows], n)
        if "raw_references" in self.asks:
            inputs["raw_references"] = _repeated([list(known.raw[row]) for row in rows], n)
        if "features" in self.asks:
            if candidates.features is None:
                raise ComponentError(f"reward '{self.name}': asks for features, and there are none here")
            inputs["features"] = _repeated(_arrays(candidates.features), n)
        return inputs

    def _asked(self, inputs: Inputs) -> list[float]:
        asked = {name: inputs[name] for name in self.asks}
        try:
            if self._pool is None:
                return call(self.function, asked, self.settings)
            return self._pool.call(asked, self.settings, self._time_limit)
        except CallError as refusal:
            suspects = refusal.suspects
            if not suspects:
                raise
            first = f"{shown(inputs['captions'][suspects[0]])} of image {inputs['images'][suspects[0]]}"
            where = f"caption {first}" if len(suspects) == 1 else f"a batch of {len(suspects)} captions, first {first}"
            raise CallError(f"{refusal.text}, for {where}") from refusal.__cause__

    def _looked_up(self, inputs: Inputs, known: dict[Any, float]) -> list[float]:
        """Asks for each pair of image and caption that is new, once."""
        keys = list(zip(inputs["images"], inputs["captions"], inputs["ended"], strict=True))
        new = {key: place for place, key in enumerate(keys) if key not in known}
        if new:
            asked = {name: [values[place] for place in new.values()] for name, values in inputs.items()}
            found = dict(zip(new, self._asked(asked), strict=True))
        else:
            found = {}
        scores = {key: found[key] if key in found else known.pop(key) for key in dict.fromkeys(keys)}
        known.update(scores)
        for key in list(known)[: len(known) - REMEMBERED]:
            del known[key]
        return [scores[key] for key in keys]


def reward_factory(found: Any, name: str) -> Callable[..., Reward]:
    """What a recipe's name stands for, made as `factory(references, **settings)`.

    A reward's class is its own factory. That of a function has a signature by which
    `rlcap.components.resolved_arguments` checks the function's settings and ours.
    """
    if isinstance(found, Reward):
        raise ComponentError(f"reward '{name}': is an instance; give its class, and its settings beside it")
    if inspect.isclass(found):
        if not issubclass(found, Reward):
            raise ComponentError(f"reward '{name}': is a class, but no rlcap.contracts.Reward; derive it from that")
        return found

    def make(references: References, **settings: Any) -> FunctionReward:
        return FunctionReward(references, found, name, **settings)

    theirs = [each for key, each in _parameters(found, name).items() if key not in INPUTS]
    ours = inspect.signature(FunctionReward).parameters
    every = [inspect.Parameter("references", inspect.Parameter.POSITIONAL_ONLY), *(ours[key] for key in OURS), *theirs]
    make.__signature__ = inspect.Signature(sorted(every, key=lambda each: each.kind))  # type: ignore[attr-defined]
    make.__name__ = _name_of(found)
    return make


def _name_of(function: Function) -> str:
    inner = getattr(function, "func", function)  # of a functools.partial
    return str(getattr(inner, "__name__", type(inner).__name__))


def _parameters(function: Function, name: str) -> Mapping[str, inspect.Parameter]:
    """Of the function, annotations evaluated; refused if it asks for what no reward gets."""
    what = f"reward '{name}'"
    if inspect.isclass(function) or not callable(function):
        raise ComponentError(f"{what}: is a {type(function).__name__}, not a function")
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except (NameError, TypeError, ValueError) as error:
        raise ComponentError(f"{what}: its parameters cannot be read ({error})") from error
    if not any(key in INPUTS for key in parameters):
        raise ComponentError(f"{what}: asks for nothing; name a parameter 'captions' (known: {', '.join(INPUTS)})")
    for key, each in parameters.items():
        if each.kind is each.POSITIONAL_ONLY:
            raise ComponentError(f"{what}: '{key}' is positional-only, but is given by its name; leave the / out")
        if key in INPUTS or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        if key in TAKEN:
            raise ComponentError(f"{what}: its setting '{key}' means something else in a recipe; give it another name")
        if each.kind is each.POSITIONAL_OR_KEYWORD and each.default is each.empty:
            near = did_you_mean(key, INPUTS)
            raise ComponentError(f"{what}: no reward is given '{key}'{near}; put a setting behind a *")
    return parameters


def _check_names(settings: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], name: str) -> None:
    """Values are for the recipe to check; from Python any object may be one."""
    free = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    known = {key: each for key, each in parameters.items() if each.kind is each.KEYWORD_ONLY and key not in INPUTS}
    unknown = [] if free else [key for key in settings if key not in known]
    if unknown:
        raise ConfigError(f"reward '{name}': unknown setting '{unknown[0]}'{did_you_mean(unknown[0], {*known, *OURS})}")
    missing = [key for key, each in known.items() if each.default is each.empty and key not in settings]
    if missing:
        raise ConfigError(f"reward '{name}': the setting '{missing[0]}' is missing")


def _repeated(values: Sequence[Any], n: int) -> list[Any]:
    return [value for value in values for _ in range(n)]


def _arrays(features: Features) -> list[np.ndarray]:
    """Of each image, its real regions; views where the tensor lies on the CPU, so nobody may write to them."""
    if features.pixels is not None and not features.values.shape[1]:
        arrays = list(features.pixels.detach().float().cpu().numpy())
    else:
        values, masks = features.values.detach().float().cpu().numpy(), features.mask.cpu().numpy()
        arrays = [value if mask.all() else value[mask] for value, mask in zip(values, masks, strict=True)]
    for array in arrays:
        array.flags.writeable = False
    return arrays
