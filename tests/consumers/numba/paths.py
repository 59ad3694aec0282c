"""A Monte-Carlo simulation whose inner loop steps an LSTM policy: hedging along random paths, in compiled code."""

import numba
import numpy as np

import fastrnn
import fastrnn.numba as frn


@numba.njit(nogil=True, cache=True, parallel=True)
def hedge(policy, readout, noise):
    """noise (paths, T) -> profit (paths,): the price is a random walk, the position what the policy makes of it."""
    paths, T = noise.shape
    profit = np.zeros(paths)
    for p in numba.prange(paths):
        state, work = frn.new_state(policy), frn.new_workspace(policy, 1)
        x, y = np.zeros((1, 2), np.float32), np.empty((1, policy.output_size), np.float32)
        price = np.float32(1.0)
        for t in range(T):
            x[0, 0], x[0, 1] = price - 1, np.float32(t) / np.float32(T)
            frn.step(policy, x, state, y, work)
            position = np.float32(0)
            for i in range(policy.output_size):
                position += readout[i] * y[0, i]
            change = price * noise[p, t]
            profit[p] += position * change
            price += change
    return profit


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    policy = fastrnn.LSTM(2, 32, rng=1)
    noise = (0.01 * rng.standard_normal((500, 50))).astype(np.float32)
    readout = rng.standard_normal(32).astype(np.float32)
    profit = hedge(frn.bind(policy), readout, noise)

    prices = np.cumprod(1 + noise, axis=1, dtype=np.float32)
    before = np.concatenate([np.ones((500, 1), np.float32), prices[:, :-1]], axis=1)
    time = np.broadcast_to(np.arange(50, dtype=np.float32) / 50, before.shape)
    y, _ = policy(np.stack([before - 1, time], axis=2).transpose(1, 0, 2))
    expected = ((y.transpose(1, 0, 2) @ readout) * before * noise).sum(1)
    print("the same as all paths at once:", np.allclose(profit, expected, atol=1e-5))
