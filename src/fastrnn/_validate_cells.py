"""The rules for options of a cell that the general path computes: its activation functions and its clip.

As in `_validate`: a value in the form the rest of the package wants, or one error that names the argument.
"""

from __future__ import annotations

import math

import numpy as np

from ._spec import ACTIVATIONS, STANDARD, Activation, Spec

_BY_LOWER = {name.lower(): name for name in ACTIVATIONS}


def clip(value: object) -> float | None:
    """None, or a positive finite number."""
    if value is None:
        return None
    number = _number("clip", value)
    if not 0 < number < math.inf:
        message = f"clip is {value!r}; it must be None or a positive finite number"
        raise ValueError(message)
    return number


def functions(
    cell: str, nonlinearity: str, value: object, directions: int
) -> tuple[str, tuple[tuple[Activation, ...], ...]]:
    """(nonlinearity, activations) of a Spec; what the fast kernels have is said by the first alone."""
    if value is None:
        return nonlinearity, ()
    if cell == "rnn" and nonlinearity != "tanh":
        message = f"nonlinearity is {nonlinearity!r} and activations is {value!r}; only one of them can be given"
        raise ValueError(message)
    found = activations(cell, value, directions)
    for known in ("tanh", "relu") if cell == "rnn" else ("tanh",):
        if found == (Spec(cell, 1, 1, nonlinearity=known).functions(0),) * directions:
            return known, ()
    return nonlinearity, found


def activations(cell: str, value: object, directions: int) -> tuple[tuple[Activation, ...], ...]:
    """Functions of each direction from what a user gives for one direction or for both.

    Each is a name of `ACTIVATIONS`, in upper or lower case, or a tuple of a name, alpha and beta. A string is one name.
    """
    usual = STANDARD[cell]
    given = [value] if isinstance(value, str) else value
    counts = sorted({len(usual), len(usual) * directions})
    if not isinstance(given, list | tuple) or len(given) not in counts:
        message = (
            f"activations is {value!r}; it must be a sequence of {' or '.join(map(str, counts))} functions, "
            f"such as {usual}"
        )
        raise (ValueError if isinstance(given, list | tuple) else TypeError)(message)
    found = tuple(_activation(f"activations[{i}]", one) for i, one in enumerate(given))
    per = len(usual)
    return tuple(found[k * per :][:per] if len(found) > per else found for k in range(directions))


def _activation(name: str, value: object) -> Activation:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not 1 <= len(parts) <= 3 or not isinstance(parts[0], str):
        message = f"{name} is {value!r}; it must be a name, or a tuple of a name, alpha and beta"
        raise TypeError(message)
    known = _BY_LOWER.get(parts[0].lower())
    if known is None:
        message = f"{name} is {parts[0]!r}; it must be one of {', '.join(map(repr, ACTIVATIONS))}"
        raise ValueError(message)
    numbers = []
    for which, usual, number in zip(("alpha", "beta"), ACTIVATIONS[known], (*parts[1:], None, None), strict=False):
        # A parameter that a function does not have may be given as 0, which is what stands for none.
        if usual is None and number not in (None, 0):
            message = f"{name} has {which} {number!r}; {known} has none"
            raise ValueError(message)
        chosen = usual if number is None else _number(f"{which} of {name}", number)
        if chosen is not None and not math.isfinite(chosen):
            message = f"{which} of {name} is {chosen}; it must be finite"
            raise ValueError(message)
        numbers.append(chosen or 0.0)
    return Activation(known, *numbers)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        message = f"{name} is {value!r} ({type(value).__name__}); it must be a number"
        raise TypeError(message)
    return float(value)
