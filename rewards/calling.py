"""One call of a user's function: lists in, plain numbers out, or a `CallError` that says why there are none.

Worker processes import this file: nothing here needs torch.
"""

import inspect
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

SEARCH = 10.0  # seconds spent on finding the caption at which a function fails
LARGEST = 3.4e38  # of float32, in which rewards are added up
FAILURES = (Exception, SystemExit)  # a function that calls exit() does not end the program

Inputs = Mapping[str, Sequence[Any]]  # by the function's names for them, one value a caption
Function = Callable[..., Any]


class CallError(Exception):
    """Why there are no numbers, and the places in the batch of the captions that may be to blame."""

    def __init__(self, text: str, suspects: Sequence[int] = ()) -> None:
        super().__init__(text, suspects)
        self.text, self.suspects = text, suspects


def call(function: Function, inputs: Inputs, settings: Mapping[str, Any]) -> list[float]:
    """The function's number for each caption; what it does to its arguments touches nobody else's."""
    captions = len(next(iter(inputs.values())))
    try:
        answer = function(**_fresh(inputs), **settings)
    except FAILURES as error:
        suspects = range(captions) if captions == 1 else _culprit(error, function, inputs, settings)
        raise CallError(_told(error, function), suspects) from error
    return numbers_in(answer, captions)


def numbers_in(answer: Any, captions: int) -> list[float]:
    """A list, array or tensor as so many finite floats."""
    wanted = f"give a list, array or tensor of {captions} numbers, one a caption"
    if hasattr(answer, "tolist") and hasattr(answer, "shape"):  # numpy's, torch's and their like
        if len(answer.shape) != 1:
            raise CallError(f"gave numbers of shape {tuple(answer.shape)}; {wanted}")
        answer = answer.tolist()
    if not isinstance(answer, list | tuple):
        what = "None (is a return missing?)" if answer is None else f"a {type(answer).__name__}"
        raise CallError(f"gave {what}; {wanted}")
    if len(answer) != captions:
        raise CallError(f"gave {len(answer)} numbers; {wanted}")
    return [_number(value, place) for place, value in enumerate(answer)]


def shown(text: str, letters: int = 80) -> str:
    """In quotes, on one line, cut where it is long."""
    return repr(text if len(text) <= letters else f"{text[: letters - 1]}…")


def _number(value: Any, place: int) -> float:
    if getattr(value, "shape", None) == ():  # a number of numpy or torch
        value = value.item()
    if not isinstance(value, Real):
        what = "None" if value is None else f"a {type(value).__name__} ({shown(' '.join(str(value).split()), 40)})"
        raise CallError(f"answer[{place}] is {what}, not a number", [place])
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= LARGEST:
        told = str(number) if abs(number) != math.inf else f"{str(value)[:40]}"
        raise CallError(f"answer[{place}] is {told}, not a finite number of float32", [place])
    return number


def _fresh(inputs: Inputs) -> dict[str, list[Any]]:
    """Lists that the function may change; arrays are read-only."""
    return {
        name: [list(value) if isinstance(value, list) else value for value in values] for name, values in inputs.items()
    }


def _culprit(batch: BaseException, function: Function, inputs: Inputs, settings: Mapping[str, Any]) -> Sequence[int]:
    """The first caption that fails alone in the same way, if there is one; otherwise all of them."""
    captions = len(next(iter(inputs.values())))
    until = time.monotonic() + SEARCH
    for place in range(captions):
        if time.monotonic() > until:
            break
        alone = {name: values[place : place + 1] for name, values in inputs.items()}
        try:
            function(**_fresh(alone), **settings)
        except FAILURES as error:
            if type(error) is type(batch) and _place(error, function) == _place(batch, function):
                return [place]
    return range(captions)


def _told(error: BaseException, function: Function) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if said else ''}{said}{_place(error, function)}"


def _place(error: BaseException, function: Function) -> str:
    """' at FILE:LINE' of the deepest frame in the function's own file, past decorators and libraries."""
    inner = inspect.unwrap(getattr(function, "func", function))  # func: of a functools.partial
    code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename] or frames
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
