"""darts' RNNModel with a GRU, unmodified: a monthly series and its forecast; points are the forecast's first values.

python examples/torch/darts_rnn.py [--small]        (needs darts and its PyTorch extra)
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
from darts import TimeSeries
from darts.models import RNNModel

from _twice import Curve, main


def train(steps: int) -> Curve:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    t = np.arange(240)
    noise = np.random.default_rng(1).normal(0, 0.05, t.size)
    series = TimeSeries.from_values((np.sin(2 * np.pi * t / 12) + 0.002 * t + noise).astype(np.float32))
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    model = RNNModel(
        24, model="GRU", hidden_dim=32, training_length=36, n_epochs=steps, batch_size=16, random_state=1,
        pl_trainer_kwargs=quiet,
    )  # fmt: skip
    model.fit(series)
    return [float(value) for value in model.predict(10).values()[:, 0]]


if __name__ == "__main__":
    main(__doc__, train, steps=10, small=1)
