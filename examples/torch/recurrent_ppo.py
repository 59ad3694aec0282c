"""sb3-contrib's RecurrentPPO balances a pole whose velocities it cannot see; points are losses of the value function.

Unmodified but for the patch, and once more with rollouts that have episode starts inside as one call (`sb3=True`).

python examples/torch/recurrent_ppo.py [--small]        (needs sb3-contrib and gymnasium)
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback

from _twice import Curve, main


class Positions(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Of cart position, velocity, pole angle and angular velocity only the positions."""

    def __init__(self, environment: gymnasium.Env[Any, Any]) -> None:
        super().__init__(environment)
        low, high = environment.observation_space.low[::2], environment.observation_space.high[::2]
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: Any) -> Any:
        return observation[::2]


class Losses(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.curve: Curve = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        found = self.model.logger.name_to_value.get("train/value_loss")
        if found:
            self.curve.append(float(found))


def train(steps: int) -> Curve:
    model = RecurrentPPO(
        "MlpLstmPolicy", Positions(gymnasium.make("CartPole-v1")), n_steps=256, batch_size=128, n_epochs=4, seed=1,
        policy_kwargs={"lstm_hidden_size": 64}, device="cpu",
    )  # fmt: skip
    losses = Losses()
    model.learn(256 * (steps + 1), callback=losses, log_interval=1000)
    return losses.curve


if __name__ == "__main__":
    main(__doc__, train, steps=8, small=2, sb3=True)
