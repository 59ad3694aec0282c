"""The recurrences written in PyTorch's own operations, for gradients of gradients.

Backward with `create_graph=True` runs a call again through these and lets PyTorch derive. They are slow, and exact: the
formulas are those of `torch.nn.RNN`, `torch.nn.LSTM` and `torch.nn.GRU`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._spec import Spec


def stack(
    spec: Spec, x: Tensor, h0: Tensor | None, c0: Tensor | None, params: Sequence[Tensor],
    active: Tensor | None, reset: Tensor | None, dropout: Tensor | None, mask: Tensor | None, zone_h: Tensor | None,
    zone_c: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """y (T, N, D*H), hn and cn (L*D, N, H) of x (T, N, I).

    `active` (T, N, 1) is False where a row has ended, `reset` (T, N, 1) True where the state is zero before the step,
    and `dropout` (L-1, T, N, D*H) holds the factors between layers. `mask` (L*D, N, H), `zone_h` and `zone_c`
    (L*D, T, N, H) are those of `Regularisers`.
    """
    each = 4 if spec.bias else 2
    shape = (spec.num_layers * spec.directions, x.shape[1], spec.hidden_size)
    h0 = x.new_zeros(shape) if h0 is None else h0
    c0 = x.new_zeros(shape) if c0 is None else c0
    last_h, last_c = [], []
    for layer in range(spec.num_layers):
        if layer and dropout is not None:
            x = x * dropout[layer - 1]
        halves = []
        for direction in range(spec.directions):
            index = layer * spec.directions + direction
            weights = params[each * index : each * (index + 1)]
            own = [None if given is None else given[index] for given in (mask, zone_h, zone_c)]
            y, h, c = _direction(spec, x, h0[index], c0[index], weights, active, reset, own, bool(direction))
            halves.append(y)
            last_h.append(h)
            last_c.append(c)
        x = torch.cat(halves, 2)
    return x, torch.stack(last_h), torch.stack(last_c) if spec.cell == "lstm" else None


def _direction(
    spec: Spec, x: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor],
    active: Tensor | None, reset: Tensor | None, regular: Sequence[Tensor | None], reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    steps = x.shape[0]
    mask, zone_h, zone_c = regular
    y: list[Tensor] = [h] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        cut = t + 1 if reverse else t  # reset[t] lies between steps t-1 and t, whichever comes first
        if reset is not None and cut < steps:
            h, c = h.masked_fill(reset[cut], 0), c.masked_fill(reset[cut], 0)
        new_h, new_c = _step(spec, x[t], h, c, weights, mask)
        new_h = new_h if zone_h is None else zone_h[t] * h + (1 - zone_h[t]) * new_h
        new_c = new_c if zone_c is None else zone_c[t] * c + (1 - zone_c[t]) * new_c
        if active is None:
            y[t], h, c = new_h, new_h, new_c
        else:
            y[t] = new_h.masked_fill(~active[t], 0)
            h, c = torch.where(active[t], new_h, h), torch.where(active[t], new_c, c)
    return torch.stack(y), h, c


def _step(
    spec: Spec, x: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor], mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    from_x = torch.nn.functional.linear(x, weights[0], weights[2] if spec.bias else None)
    from_h = torch.nn.functional.linear(h if mask is None else h * mask, weights[1], weights[3] if spec.bias else None)
    if spec.cell == "gru":
        (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3, 1), from_h.chunk(3, 1)
        z = torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
        return (1 - z) * n + z * h, c
    if spec.cell == "rnn":
        sums = from_x + from_h
        return (torch.relu(sums) if spec.nonlinearity == "relu" else torch.tanh(sums)), c
    i, f, g, o = (from_x + from_h).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
