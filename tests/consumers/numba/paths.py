"""A Monte-Carlo simulation whose inner loop steps an LSTM policy: hedging along random paths, in three ways.

    python paths.py [paths [steps [units]]]

`hedge` steps fastrnn's kernel from inside Numba's loop, a path after the other; `hedge_numba` has the LSTM written out
for Numba; `hedge_numpy` goes through the steps once with all paths as the batch. They give the same profits.
"""

import sys
import time

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


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=True)
def hedge_numba(W, U, b, readout, noise):
    """The same without fastrnn. W (2, 4H) and U (H, 4H) are transposed, so that the inner loop runs along the gates."""
    paths, T = noise.shape
    H = len(U)
    profit = np.zeros(paths)
    for p in numba.prange(paths):
        h, c, gates = np.zeros(H, np.float32), np.zeros(H, np.float32), np.empty(4 * H, np.float32)
        one, price = np.float32(1), np.float32(1)
        for t in range(T):
            x0, x1 = price - one, np.float32(t) / np.float32(T)
            for j in range(4 * H):
                gates[j] = b[j] + x0 * W[0, j] + x1 * W[1, j]
            for k in range(H):
                hk = h[k]
                for j in range(4 * H):
                    gates[j] += hk * U[k, j]
            position = np.float32(0)
            for i in range(H):
                take, forget = one / (one + np.exp(-gates[i])), one / (one + np.exp(-gates[H + i]))
                c[i] = forget * c[i] + take * np.tanh(gates[2 * H + i])
                h[i] = np.tanh(c[i]) / (one + np.exp(-gates[3 * H + i]))
                position += readout[i] * h[i]
            change = price * noise[p, t]
            profit[p] += position * change
            price += change
    return profit


def hedge_numpy(W, U, b, readout, noise):
    """The same in NumPy: a step of all paths is two products and the gates, of arrays (paths, 4H)."""
    paths, T = noise.shape
    h, c = np.zeros((2, paths, len(U)), np.float32)
    profit, price = np.zeros(paths), np.ones(paths, np.float32)
    for t in range(T):
        x = np.stack([price - 1, np.full(paths, t / T, np.float32)], axis=1)
        i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        change = price * noise[:, t]
        profit += (h @ readout) * change
        price += change
    return profit


def main(paths=500, steps=50, units=32):
    rng = np.random.default_rng(0)
    policy = fastrnn.LSTM(2, units, rng=1)
    noise = (0.01 * rng.standard_normal((paths, steps))).astype(np.float32)
    readout = rng.standard_normal(units).astype(np.float32)
    state = policy.state_dict()
    W, U = (np.ascontiguousarray(state[f"weight_{name}_l0"].T) for name in ("ih", "hh"))
    b = state["bias_ih_l0"] + state["bias_hh_l0"]
    bound = frn.bind(policy)

    ways = {
        "fastrnn in Numba": lambda: hedge(bound, readout, noise),
        "Numba alone": lambda: hedge_numba(W, U, b, readout, noise),
        "NumPy": lambda: hedge_numpy(W, U, b, readout, noise),
    }
    profits = [run() for run in ways.values()]  # compiled, warm
    for name, run in ways.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(f"{name:17} {min(times) * 1e9 / (paths * steps):8.1f} ns a step of a path")
    print("the same profits:", all(np.allclose(other, profits[0], rtol=1e-4, atol=1e-5) for other in profits[1:]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
