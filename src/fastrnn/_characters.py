"""A model that predicts the next character of a text: embedding, recurrent stack, linear layer.

One training step is truncated back-propagation through time (Williams and Peng 1990): T steps forward from the state
that the last chunk of the same text left, T steps back, gradients ending at the chunk's border.

Letters: T steps, N batch, V characters of the alphabet. Arrays of characters are (T, N).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import log
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _io
from ._tape import Gradients, Tape
from .layers import GRU, LSTM, RNN
from .training import Embedding, Linear, softmax_cross_entropy

Array: TypeAlias = npt.NDArray[Any]

CELLS: dict[str, type[LSTM | GRU | RNN]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
EVALUATION_STREAMS = 16  # rows of the batch in which held-out text is read: enough for the kernels to be efficient
EVALUATION_STEPS = 128


class CharacterModel:
    """Scores for the next character, given those before it.

    Parameters
    ----------
    alphabet : str
        All characters that occur, each once.
    cell : {"lstm", "gru", "rnn"}
    embedding_size, hidden_size, num_layers : int
        Positive.
    dropout : float
        Between the layers of the stack, in training only.
    rng : None, int or numpy.random.Generator
        For weights and dropout.

    Raises
    ------
    TypeError, ValueError
        If an option is out of its range.
    """

    def __init__(
        self,
        alphabet: str,
        *,
        cell: str = "lstm",
        embedding_size: int = 64,
        hidden_size: int = 256,
        num_layers: int = 2,
        dropout: float = 0.0,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        if len(set(alphabet)) != len(alphabet) or cell not in CELLS:
            message = f"alphabet must have each character once, and cell be one of {', '.join(CELLS)}"
            raise ValueError(message)
        rng = np.random.default_rng(rng)
        self.alphabet = alphabet
        self.cell = cell
        self.recurrent: Any = CELLS[cell](embedding_size, hidden_size, num_layers, dropout=dropout, rng=rng)
        self.embedding = Embedding(len(alphabet), embedding_size, rng=rng)
        self.head = Linear(hidden_size, len(alphabet), rng=rng)
        self._tape: Tape | None = None
        self._gradients: Gradients | None = None

    @property
    def layers(self) -> list[Any]:
        """What an optimiser trains, in the order of the gradients of `train`."""
        return [self.embedding, self.recurrent, self.head]

    @property
    def weight_count(self) -> int:
        return sum(layer.weights.flat.size for layer in self.layers)

    def encode(self, text: str) -> Array:
        """Indices of characters in the alphabet, shape (len(text),), int64.

        Raises
        ------
        ValueError
            If a character is not in the alphabet.
        """
        index = {character: i for i, character in enumerate(self.alphabet)}
        if unknown := sorted(set(text) - set(index)):
            message = f"the model does not know the characters {''.join(unknown)!r}; it was trained without them"
            raise ValueError(message)
        return np.fromiter((index[character] for character in text), np.int64, len(text))

    def train(self, inputs: Array, targets: Array, state: Any) -> tuple[float, list[Any], Any]:
        """Loss and gradients of one chunk.

        Parameters
        ----------
        inputs, targets : ndarray, shape (T, N), int64
            Characters, and those that follow them.
        state : state of the recurrent stack, or None for zeros

        Returns
        -------
        loss : float
            Mean cross-entropy in nats.
        gradients : list
            One entry for each of `layers`. The next call may write over them.
        state
            After the chunk.
        """
        vectors, embedding_tape = self.embedding.forward(inputs)
        y, state, self._tape = self.recurrent.forward(vectors, state, tape=self._tape)
        scores, head_tape = self.head.forward(y)
        loss, dscores = softmax_cross_entropy(scores, targets, out=scores)
        head = self.head.backward(head_tape, dscores)
        self._gradients = stack = self.recurrent.backward(self._tape, head.x, out=self._gradients)
        return loss, [self.embedding.backward(embedding_tape, stack.x), stack, head], state

    def bits_per_character(self, text: Array) -> float:
        """Mean of -log2 of the probability given to each character after the first of each row.

        Parameters
        ----------
        text : ndarray, shape (at least 2,), int64
            It is read as up to 16 rows side by side, each from a zero state.
        """
        inputs, targets = rows_of(text, min(EVALUATION_STREAMS, max(1, len(text) // EVALUATION_STEPS)))
        state = None
        total = 0.0
        for start in range(0, len(inputs), EVALUATION_STEPS):
            part = slice(start, start + EVALUATION_STEPS)
            y, state = self.recurrent(self.embedding(inputs[part]), state)
            scores = self.head(y)
            total += softmax_cross_entropy(scores, targets[part], out=scores)[0] * inputs[part].size
        return total / inputs.size / log(2)

    def generate(
        self, prompt: str, count: int, *, temperature: float = 1.0, rng: int | np.random.Generator | None = None
    ) -> Iterator[str]:
        """Characters drawn one by one, each given all before it.

        Parameters
        ----------
        prompt : str
            What the text begins with; it is read, not returned.
        count : int
            How many characters are drawn.
        temperature : float
            Scores are divided by it: below 1 the likely becomes likelier; 0 always takes the likeliest.
        rng : None, int or numpy.random.Generator

        Raises
        ------
        ValueError
            If the prompt has a character that is not in the alphabet.
        """
        rng = np.random.default_rng(rng)
        stream = self.recurrent.stream()
        index = 0
        hidden = np.zeros(self.head.in_features, np.float32)
        for index in self.encode(prompt or self.alphabet[0]):
            hidden = stream.step(self.embedding(index))
        for _ in range(count):
            index = _draw(self.head(hidden), temperature, rng)
            yield self.alphabet[index]
            hidden = stream.step(self.embedding(index))

    def save(self, path: str | os.PathLike[str], **facts: Any) -> None:
        """Write alphabet, options and weights, and whatever facts json can hold, to an .npz file without pickle.

        The file appears when it is complete: an interrupted save leaves the old one.
        """
        arrays = {f"embedding.{name}": array for name, array in self.embedding.weights.items()}
        arrays |= {f"recurrent.{name}": array for name, array in self.recurrent.weights.items()}
        arrays |= {f"head.{name}": array for name, array in self.head.weights.items()}
        header = {"model": "characters", "format": 1, "alphabet": self.alphabet, "cell": self.cell, "facts": facts}
        _io.write(path, arrays, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CharacterModel:
        """The model that `save` wrote, without dropout.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged or no such model.
        """
        arrays, header = _io.read(path)
        if header.get("model") != "characters" or header.get("format") != 1:
            message = f"{path} is not a character model of this version of fastrnn"
            raise ValueError(message)
        try:
            # Sizes come from the arrays, so a header cannot ask for more memory than the file holds.
            model = cls(
                header["alphabet"],
                cell=header["cell"],
                embedding_size=arrays["embedding.weight"].shape[1],
                hidden_size=arrays["head.weight"].shape[1],
                num_layers=sum(name.startswith("recurrent.weight_ih_l") for name in arrays),
            )
            for part, layer in zip(("embedding.", "recurrent.", "head."), model.layers, strict=True):
                layer.load_state_dict({k.removeprefix(part): v for k, v in arrays.items() if k.startswith(part)})
        except (KeyError, IndexError, TypeError, ValueError) as error:
            message = f"{path} is not a complete character model: {error}"
            raise ValueError(message) from error
        return model


def alphabet_of(text: str) -> str:
    """Each character of the text once, in the order of their code points."""
    return "".join(sorted(set(text)))


def rows_of(text: Array, batch: int) -> tuple[Array, Array]:
    """A text cut into `batch` consecutive rows of equal length: inputs and targets, each (T, N)."""
    length = (len(text) - 1) // batch
    inputs = text[: batch * length].reshape(batch, length).T
    targets = text[1 : batch * length + 1].reshape(batch, length).T
    return np.ascontiguousarray(inputs), np.ascontiguousarray(targets)


def _draw(scores: Array, temperature: float, rng: np.random.Generator) -> int:
    """An index, with probabilities softmax(scores / temperature)."""
    if temperature == 0:
        return int(scores.argmax())
    wide = scores.astype(np.float64)
    sums = np.cumsum(np.exp((wide - wide.max()) / temperature))
    # The last sum is the total, which rounding may let the drawn number reach.
    return min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), len(sums) - 1)
