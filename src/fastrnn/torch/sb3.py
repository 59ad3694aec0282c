"""sb3-contrib's recurrent policies: a rollout with episode starts inside is one call, and no loop over its steps.

`RecurrentActorCriticPolicy._process_sequence` sets the state to zero where an episode starts, and so calls its LSTM
once for every step. To fastrnn the starts are the `reset` flags of one call. What it does not compute goes to the
original.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import autograd, cache, routes
from .report import count

_original: Callable[..., Any] | None = None

States = tuple[Tensor, Tensor]


def install() -> None:
    """Replaces the policies' function.

    Raises
    ------
    ImportError
        sb3-contrib is not installed.
    """
    global _original
    policy = _policy()
    if _original is None:
        _original = policy._process_sequence
        policy._process_sequence = staticmethod(process_sequence)


def remove() -> None:
    """Gives the policies theirs back."""
    global _original
    if _original is None:
        return
    policy = _policy()
    if policy._process_sequence is process_sequence:  # somebody may have put theirs on top
        policy._process_sequence = staticmethod(_original)
        _original = None


def _policy() -> Any:
    try:
        return importlib.import_module("sb3_contrib.common.recurrent.policies").RecurrentActorCriticPolicy
    except ImportError as error:
        message = 'patch(sb3=True) is for sb3-contrib, which cannot be imported: pip install "sb3-contrib"'
        raise ImportError(message) from error


def process_sequence(features: Tensor, lstm_states: States, episode_starts: Tensor, lstm: Any) -> tuple[Tensor, States]:
    """Outputs (N*T, H) of features (N*T, I), row by row, and the states (L, N, H) after the last step.

    The states are zero before a step with episode_starts (N*T,) of 1.
    """
    assert _original is not None
    call, x, h0, c0, params, reason = _parsed(features, lstm_states, episode_starts, lstm)
    if call is None:
        count("sb3 sequence", reason)
        made: tuple[Tensor, States] = _original(features, lstm_states, episode_starts, lstm)
        return made
    count("sb3 sequence", reason)
    y, h, c = autograd.run(call, x, h0, c0, params)
    return y.transpose(0, 1).flatten(0, 1), (h, c)


def _parsed(features: Tensor, states: States, starts: Tensor, lstm: Any) -> routes.Parsed:
    nothing = routes.NOTHING
    if not routes.following or torch.compiler.is_compiling():
        return *nothing, "not patched"
    if reason := routes.context():
        return *nothing, reason
    if type(lstm) is not torch.nn.LSTM or "forward" in vars(lstm):
        return *nothing, "not torch.nn.LSTM"
    if lstm._forward_hooks or lstm._forward_pre_hooks or lstm._backward_hooks:
        return *nothing, "hooks"
    if lstm.bidirectional or lstm.batch_first or (lstm.dropout and lstm.training and lstm.num_layers > 1):
        return *nothing, "an option of which a loop over steps makes something else"
    if not cache.is_plain(starts) or starts.requires_grad:
        return *nothing, "episode starts that are not in this machine's memory"
    batch = states[0].shape[1]
    x = features.reshape((batch, -1, lstm.input_size)).transpose(0, 1)
    flags = starts.reshape(batch, -1).transpose(0, 1)
    given = flags.numpy()
    reset = np.ascontiguousarray(given != 0)
    if flags.shape != x.shape[:2] or not np.array_equal(given, reset):
        return *nothing, "episode starts other than 0 and 1"
    return routes.prepared(
        "lstm", "tanh", x, states, lstm._flat_weights, lstm.bias, lstm.num_layers, 0.0, False, False,
        reset=reset if reset.any() else None,
    )  # fmt: skip
