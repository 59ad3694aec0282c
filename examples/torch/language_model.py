"""A word-level language model: embedding and output share their weights, gradients end after 35 steps.

python examples/torch/language_model.py [--small]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from _text import sentences, vocabulary
from _twice import Curve, main, mean_of_tenths

WORDS, WIDTH, STEPS, BATCH = 2000, 128, 35, 16


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, dropout=0.2)
        self.out = nn.Linear(WIDTH, WORDS)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.out.weight = self.embedding.weight  # tied

    def forward(self, words: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        y, state = self.lstm(self.embedding(words), state)
        return self.out(y), state


def streams() -> torch.Tensor:
    """(T, N): the text cut into N long columns."""
    words = [word.lower() for sentence in sentences() for word in sentence]
    known = vocabulary(words, WORDS)
    numbers = torch.tensor([known.get(word, 0) for word in words])
    length = len(numbers) // BATCH
    return numbers[: length * BATCH].view(BATCH, length).t().contiguous()


def train(steps: int) -> Curve:
    torch.manual_seed(1)
    text, model = streams(), Model()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    state, losses = None, []
    for step in range(steps):
        begin = step * STEPS % (len(text) - STEPS - 1)
        scores, state = model(text[begin : begin + STEPS], state)
        state = tuple(part.detach() for part in state)  # truncated: no gradient reaches the chunk before
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), text[begin + 1 : begin + STEPS + 1].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
        losses.append(loss.item())
    return mean_of_tenths(losses)


if __name__ == "__main__":
    main(__doc__, train, steps=200, small=10)
