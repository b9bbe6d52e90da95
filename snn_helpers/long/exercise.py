"""Checks of exercises: they say *Right.*, *Not yet:* and why, or that the exercise is still to be done.

A chapter's checks are functions in `snn_chapters/exercises`, one for each exercise. A check never ends in a traceback,
defines no name in the notebook, and changes nothing there: it works on copies, and leaves the random draws where they
were. Where a program is to know, it raises: with SNN_STRICT_CHECKS=1, as the book's own tests have it, and when
nbgrader runs the notebook.
"""

from __future__ import annotations

import copy
import math
import numbers
import os
import random
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

WIDTH = 84  # characters of a line of what is printed
LONGEST = 200  # characters that are quoted of an error's message
MOST_STEPS = 200_000  # of Python's interpreter in a learner's function, where it might never end


class NotYet(AssertionError):
    """An answer that is not right yet; the message says what is wrong, and what to look at. It holds no solution."""


class Undone(AssertionError):
    """A blank that nobody has filled in."""


class Check:
    """The checks of one chapter: `check(2, answer)` prints what is to be said of exercise 2.

    A check is a function of the answer, or of several, and of what the notebook gives by name. It returns the one
    sentence that leads on from a right answer, and raises `NotYet` for any other.
    """

    def __init__(self) -> None:
        self.functions: dict[int, Callable[..., str]] = {}

    def exercise(self, number: int) -> Callable[[Callable[..., str]], Callable[..., str]]:
        """Make a function the check of the exercise of that number."""

        def keep(function: Callable[..., str]) -> Callable[..., str]:
            if number in self.functions:
                raise ValueError(f"exercise {number} has a check already: {self.functions[number].__name__}")
            self.functions[number] = function
            return function

        return keep

    def __call__(self, number: int, *answers: Any, **given: Any) -> None:
        """Print *Right.*, *Not yet:* and why, or that the exercise is still to be done.

        Raises
        ------
        ValueError : there is no exercise of that number here.
        NotYet, Undone : instead of printing, where checks are strict.
        """
        if number not in self.functions:
            known = ", ".join(str(known) for known in sorted(self.functions))
            raise ValueError(f"there is no check for an exercise {number!r} here, only for {known}")
        try:
            said = f"Right. {self._outcome(number, answers, given)}"
        except Undone as undone:
            said = f"Exercise {number} is yours to do: {undone}."
            if strict():
                raise Undone(said) from None
        except NotYet as wrong:
            said = f"Not yet: {wrong}"
            if strict():
                raise NotYet(said) from None
        print(textwrap.fill(said, WIDTH, break_long_words=False, break_on_hyphens=False))

    def _outcome(self, number: int, answers: Sequence[Any], given: dict[str, Any]) -> str:
        if any(answer is None for answer in answers):
            raise Undone("put your answer in place of None, run that cell, and then this one")
        with _nothing_changed():
            try:
                return self.functions[number](
                    *(_copied(answer) for answer in answers), **{name: _copied(value) for name, value in given.items()}
                )
            except (NotYet, Undone):
                raise
            except Exception as error:  # an answer of a form that the check did not think of
                raise NotYet(
                    f"the check cannot work with this answer ({_told(error)}). Is it of the kind that the task wants?"
                ) from error


def strict() -> bool:
    """Whether a check that does not pass raises: asked for by SNN_STRICT_CHECKS=1, or by nbgrader."""
    return os.environ.get("SNN_STRICT_CHECKS") == "1" or "NBGRADER_EXECUTION" in os.environ


# --- what a check asks of an answer ----------------------------------------------------------------


def number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    whole: bool = False,
    share: bool = False,
    what: str = "it",
) -> float:
    """`value` as a float, `least` to `most`: an int, a float, a NumPy or 0-d tensor, or a list of one of them.

    `whole` wants a whole number (8.0 is one); `share` wants 0 to 1, and knows a percentage when it sees one; `what`
    says what kind of thing must lie between the bounds, such as "a decay". Raises `NotYet` for all else.
    """
    found = _plain(value)
    if isinstance(found, (list, tuple, np.ndarray)):
        flat = np.asarray(found, dtype=object).reshape(-1) if not isinstance(found, np.ndarray) else found.reshape(-1)
        if len(flat) != 1:
            raise NotYet(f"{name} should be one number, and is {kind(value)} of {len(flat)}")
        found = flat[0]
        found = found.item() if hasattr(found, "item") else found
    if isinstance(found, np.generic):
        found = found.item()
    if isinstance(found, bool) or not isinstance(found, (numbers.Real, Decimal)):
        raise NotYet(f"{name} should be a number, and is {kind(value)}")
    try:
        found = float(found)
    except OverflowError:
        raise NotYet(f"{name} is far too large a number") from None
    if not math.isfinite(found):
        raise NotYet(f"{name} should be a finite number, and is {found}")
    if share:
        least, most = max(least, 0.0), min(most, 1.0)
        if 1 < found <= 100:
            raise NotYet(f"{name} should be a share, between 0 and 1; {found:g} looks like per cent")
    if not least <= found <= most:
        bounds = f"between {least:g} and {most:g}" if most < math.inf else f"{least:g} or more"
        bounds = f"{most:g} or less" if least == -math.inf else bounds
        raise NotYet(f"{name} is {found:g}, and {what} is {bounds}")
    if whole and found != round(found):
        raise NotYet(f"{name} should be a whole number, and is {found:g}")
    return found


def tensor(name: str, value: Any, shape: Sequence[int] | None = None) -> Tensor:
    """`value` as a float64 tensor on the CPU: tensors, NumPy arrays, and lists of numbers are taken.

    Raises `NotYet` for what is none, for another shape, and where a number is not finite.
    """
    if isinstance(value, Tensor):
        found = value.detach().cpu().to_dense().double()
    else:
        if not isinstance(value, (list, tuple, np.ndarray, numbers.Real)) or isinstance(value, bool):
            raise NotYet(f"{name} should be a tensor, and is {kind(value)}")
        if (odd := _no_number(value)) is not None:
            raise NotYet(f"{name} should be a tensor of numbers, and is {kind(value)} that holds {odd}")
        try:
            found = torch.as_tensor(np.asarray(_plain(value), dtype=np.float64))
        except (TypeError, ValueError, OverflowError):
            raise NotYet(f"{name} should be a tensor of numbers, and is {kind(value)} that makes none") from None
    if shape is not None and tuple(found.shape) != tuple(shape):
        raise NotYet(f"{name} should have the shape {list(shape)}, and has {list(found.shape)}")
    if not bool(found.isfinite().all()):
        raise NotYet(f"{name} holds numbers that are not finite")
    return found


def near(one: Tensor, other: Tensor, rtol: float = 1e-4, atol: float = 1e-6) -> bool:
    """Whether two tensors have one shape and, in double precision, the same numbers within the tolerances."""
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=rtol, atol=atol)


def _no_number(value: Any) -> str | None:
    """What a list, a tuple or an array holds, at any depth, that NumPy would make a number of, such as None and "0"."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return kind(value)
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.dtype.kind in "OUS" else []
    parts = value if isinstance(value, (list, tuple)) else []
    return next((odd for odd in map(_no_number, parts) if odd is not None), None)


def _plain(value: Any) -> Any:
    """A value with numbers for tensors, in lists at any depth, too: NumPy has no bfloat16, and takes no gradient."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value.detach().cpu().tolist() if isinstance(value, Tensor) else value


def letters(name: str, value: Any, known: str) -> set[str]:
    """Letters, in upper case, of a text or of a list, a set or an array of texts: "AC", "a and c", ["A", "C"].

    Raises `NotYet` for all else, and for a letter that is none of `known`.
    """
    given = value.tolist() if isinstance(value, np.ndarray) else value
    parts = [given] if isinstance(given, str) else given
    example = f'["{known[0]}", "{known[1]}"]'
    if isinstance(parts, dict) or not isinstance(parts, Collection):
        raise NotYet(f"{name} should be a list of letters, as in {example}, and is {kind(value)}")
    if not all(isinstance(part, str) for part in parts):
        raise NotYet(f"{name} should be a list of letters, as in {example}, and is {kind(value)} that holds others")
    words = re.findall(r"\w+", " ".join(parts).upper())
    found = set("".join(word for word in words if word != "AND"))
    if found - set(known):
        raise NotYet(f"{name}: the letters are {', '.join(known)}")
    return found


def function(name: str, value: Any) -> Callable[..., Any]:
    """`value`, which must be a function."""
    if not callable(value):
        raise NotYet(f"{name} should be a function, and is {kind(value)}")
    return value  # type: ignore[no-any-return]


def call(name: str, asked: Any, *arguments: Any, **named: Any) -> Any:
    """What the learner's function does with these very arguments, and answers, None included.

    Raises `NotYet` where it fails.
    """
    called = function(name, asked)
    try:
        return called(*arguments, **named)
    except (NotYet, Undone):  # raised by what the check handed to it
        raise
    except Exception as error:
        raise NotYet(f"{name} stops with an error ({_told(error)})") from error


def ask(name: str, asked: Any, *arguments: Any, **named: Any) -> Any:
    """What the learner's function answers to these arguments; they are copies, so it may be asked again.

    Raises `Undone` where it answers None, and `NotYet` where it fails, or changes a tensor that it was given.
    """
    own, own_named = [_copied(value) for value in arguments], {key: _copied(value) for key, value in named.items()}
    answer = call(name, asked, *own, **own_named)
    for before, after in zip([*arguments, *named.values()], [*own, *own_named.values()]):
        if isinstance(before, Tensor) and not _same(before, after):
            raise NotYet(
                f"{name} changes a tensor that it was given, in place; whoever calls it still needs the old one."
                " Make a new tensor, as in a + b instead of a += b"
            )
    if answer is None:
        raise Undone(f"{name} returns None so far")
    return answer


def ending(name: str, asked: Callable[..., Any], most_steps: int = MOST_STEPS) -> Callable[..., Any]:
    """The learner's function, stopped after so many steps of Python: a loop without end would hang the notebook.

    What it returns raises `NotYet` then. To be asked by `ask`.
    """

    def stopped(*arguments: Any, **named: Any) -> Any:
        left, before = most_steps, sys.gettrace()

        def count(frame: Any, event: str, argument: Any) -> Any:
            nonlocal left
            frame.f_trace_opcodes = True  # a loop in one line is no new line
            left -= 1
            if left < 0:
                raise NotYet(f"{name} does not come to an end for {_in_words(arguments)}: does each of its loops?")
            return count

        sys.settrace(count)
        try:
            return asked(*arguments, **named)
        finally:
            sys.settrace(before)

    return stopped


def _in_words(arguments: Sequence[Any]) -> str:
    return " and ".join(f"{value:g}" if isinstance(value, numbers.Real) else kind(value) for value in arguments)


def kind(value: Any) -> str:
    """What a value is, in words: "a list", "a function", "the text 'no'"."""
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{'a tensor' if isinstance(value, Tensor) else 'an array'} of the shape {list(value.shape)}"
    if isinstance(value, bool):
        return f"{value}"
    if isinstance(value, type) or not callable(value) or isinstance(value, nn.Module):
        names = {list: "a list", tuple: "a tuple", dict: "a dictionary", set: "a set", complex: "a complex number"}
        return names.get(type(value), f"of the type {type(value).__name__}")
    return "a function"


def _told(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:LONGEST]}" if words else type(error).__name__


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, torch.Generator):
        return value  # made by the check for this one call
    if isinstance(value, (nn.Module, np.ndarray, list, dict, tuple, set)):
        try:
            return copy.deepcopy(value)
        except Exception:  # what cannot be copied, such as a graph, is looked at only
            return value
    return value


def _same(before: Tensor, after: Tensor) -> bool:
    return before.shape == after.shape and before.dtype == after.dtype and torch.equal(before, after)


@contextmanager
def _nothing_changed() -> Iterator[None]:
    """Leave the random draws, the recording of gradients, and the default dtype as they were."""
    kept, of_numpy, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    with torch.random.fork_rng(), torch.enable_grad():
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(of_numpy)
            torch.set_default_dtype(dtype)
