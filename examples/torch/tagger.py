"""A bidirectional LSTM on packed sentences restores capital letters: a tag for each word of text in lower case.

python examples/torch/tagger.py [--small]
"""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from _text import sentences, vocabulary
from _twice import Curve, main, mean_of_tenths

WORDS, WIDTH, HIDDEN, BATCH = 3000, 64, 64, 32


def tag(word: str) -> int:
    """0 lower case or no letter, 1 a capital first, 2 capitals throughout."""
    if not word.isalpha() or word.islower():
        return 0
    return 2 if word.isupper() and len(word) > 1 else 1


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, HIDDEN, bidirectional=True)
        self.out = nn.Linear(2 * HIDDEN, 3)

    def forward(self, words: nn.utils.rnn.PackedSequence) -> torch.Tensor:
        y, _ = self.lstm(words._replace(data=self.embedding(words.data)))
        return self.out(y.data)


def train(steps: int) -> Curve:
    torch.manual_seed(1)
    shuffle = random.Random(2)
    text = [sentence[:80] for sentence in sentences()]
    known = vocabulary([word.lower() for sentence in text for word in sentence], WORDS)
    pairs = [
        (
            torch.tensor([known.get(word.lower(), 0) for word in sentence]),
            torch.tensor([tag(word) for word in sentence]),
        )
        for sentence in text
    ]
    model = Tagger()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        chosen = shuffle.sample(pairs, BATCH)
        words = pack_sequence([words for words, _ in chosen], enforce_sorted=False)
        tags = pack_sequence([tags for _, tags in chosen], enforce_sorted=False)
        loss = nn.functional.cross_entropy(model(words), tags.data)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return mean_of_tenths(losses)


if __name__ == "__main__":
    main(__doc__, train, steps=200, small=10)
