"""A forecaster of probabilities (Salinas, Flunkert, Gasthaus 2017, "DeepAR"): an LSTM gives mean and width of the next.

It is trained on whole series; a forecast draws one value after another and feeds it back, a call of one step each. The
last point of the curve is the error of the forecast.

python examples/torch/forecaster.py [--small]
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from _twice import Curve, main, mean_of_tenths

SERIES, STEPS, HORIZON, DRAWS, HIDDEN = 32, 96, 48, 50, 40


def series() -> torch.Tensor:
    """(T, N, 1): daily seasons of other heights and phases, with noise, scaled to about 1."""
    t = torch.arange(STEPS + HORIZON)[:, None]
    height, phase = 0.5 + torch.rand(1, SERIES), 2 * math.pi * torch.rand(1, SERIES)
    return (height * torch.sin(2 * math.pi * t / 24 + phase) + 0.1 * torch.randn(len(t), SERIES))[..., None]


class Forecaster(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, HIDDEN, num_layers=2)
        self.out = nn.Linear(HIDDEN, 2)

    def forward(self, x: torch.Tensor, state: Any = None) -> tuple[torch.distributions.Normal, Any]:
        y, state = self.lstm(x, state)
        mean, width = self.out(y).chunk(2, -1)
        return torch.distributions.Normal(mean, nn.functional.softplus(width) + 1e-3), state

    @torch.no_grad()
    def sample(self, past: torch.Tensor) -> torch.Tensor:
        """(HORIZON, DRAWS, N, 1) drawn step by step."""
        law, state = self(past.repeat(1, DRAWS, 1))
        x, drawn = law.sample()[-1:], []
        for _ in range(HORIZON):
            drawn.append(x)
            law, state = self(x, state)
            x = law.sample()
        return torch.cat(drawn).view(HORIZON, DRAWS, -1, 1)


def train(steps: int) -> Curve:
    torch.manual_seed(1)
    data, model = series(), Forecaster()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        law, _ = model(data[: STEPS - 1])
        loss = -law.log_prob(data[1:STEPS]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    error = (model.sample(data[:STEPS]).mean(1) - data[STEPS:]).abs().mean().item()
    return [*mean_of_tenths(losses), error]


if __name__ == "__main__":
    main(__doc__, train, steps=150, small=5)
