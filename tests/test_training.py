"""Linear, Embedding, losses, clipping and optimisers: values, gradients by finite differences, bad input."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastrnn.training import (
    SGD,
    Adam,
    Embedding,
    Linear,
    clip_grad_norm,
    mean_squared_error,
    softmax_cross_entropy,
)


def numeric_gradient(f: Callable[[], float], array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of f with respect to every element of array, which is changed and put back."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = f()
        array[index] = kept - step
        below = f()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def weight_gradient(layer: Any, f: Callable[[], float], step: float = 1e-6) -> np.ndarray:
    """Central differences of f with respect to the flat weights of a layer."""
    with layer.edit() as weights:
        count = weights.flat.size
    gradient = np.empty(count)
    for index in range(count):
        values = []
        for change in (step, -2 * step, step):
            with layer.edit() as weights:
                weights.flat[index] += change
            values.append(f())
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Linear


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_gradients(rng: np.random.Generator, shape: tuple[int, ...], bias: bool) -> None:
    layer = Linear(3, 2, bias=bias, dtype=np.float64, rng=1)
    x = rng.standard_normal(shape)
    dy = rng.standard_normal((*shape[:-1], 2))
    y, tape = layer.forward(x)
    expected = x @ layer.weight.T + (0 if layer.bias is None else layer.bias)
    np.testing.assert_allclose(y, expected)
    np.testing.assert_array_equal(layer(x), y)
    grads = layer.backward(tape, dy)

    def loss() -> float:
        return float(np.sum(layer(x) * dy))

    np.testing.assert_allclose(grads.x, numeric_gradient(loss, x), atol=1e-8)
    np.testing.assert_allclose(grads.flat, weight_gradient(layer, loss), atol=1e-8)
    assert list(grads.weights) == list(layer.state_dict())


def test_linear_accumulates_into_out(rng: np.random.Generator) -> None:
    layer = Linear(3, 2, rng=1)
    x = rng.standard_normal((4, 3)).astype(np.float32)
    dy = np.ones((4, 2), np.float32)
    _, tape = layer.forward(x)
    once = layer.backward(tape, dy)
    flat = once.flat.copy()
    twice = layer.backward(tape, dy, out=once, accumulate=True)
    assert twice.flat is once.flat
    np.testing.assert_array_equal(twice.flat, 2 * flat)
    np.testing.assert_array_equal(layer.backward(tape, dy, out=once).flat, flat)
    with pytest.raises(ValueError, match="accumulate"):
        layer.backward(tape, dy, accumulate=True)
    with pytest.raises(ValueError, match="out"):
        layer.backward(tape, dy, out=linear_gradients(1.0))


def test_linear_errors(rng: np.random.Generator) -> None:
    layer = Linear(3, 2, rng=1)
    with pytest.raises(ValueError, match="x has shape"):
        layer(np.zeros((4, 2)))
    with pytest.raises(TypeError, match="x has dtype"):
        layer(np.zeros((4, 3), complex))
    with pytest.raises(ValueError, match="in_features"):
        Linear(0, 2)
    with pytest.raises(TypeError, match="out_features"):
        Linear(2, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dtype"):
        Linear(2, 2, dtype=np.int32)
    _, tape = layer.forward(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="dy has shape"):
        layer.backward(tape, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="another layer"):
        Linear(3, 2, rng=1).backward(tape, np.zeros((4, 2)))
    with layer.edit() as weights:
        weights["bias"] += 1
    with pytest.raises(ValueError, match="change of the weights"):
        layer.backward(tape, np.zeros((4, 2)))


def test_weights_change_only_through_edit() -> None:
    layer = Linear(3, 2, rng=1)
    before = layer.state_dict()
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0, 0] = 1
    with pytest.raises(ValueError, match="broadcast"), layer.edit() as weights:
        weights["weight"] += np.ones(5)
    np.testing.assert_array_equal(layer.weight, before["weight"])
    with layer.edit() as weights:
        weights["weight"] += 1
    weights["weight"][...] = 0  # a scratch copy kept by the user is no way in
    np.testing.assert_array_equal(layer.weight, before["weight"] + 1)
    layer.load_state_dict(before)
    np.testing.assert_array_equal(layer.weight, before["weight"])
    for bad in ({"weight": before["weight"]}, {**before, "more": 1.0}, {**before, "bias": np.zeros(3)}):
        with pytest.raises(ValueError, match="weights are not those"):
            layer.load_state_dict(bad)
    np.testing.assert_array_equal(layer.weight, before["weight"])


def test_initial_weights_follow_the_seed() -> None:
    np.testing.assert_array_equal(Linear(4, 5, rng=3).weight, Linear(4, 5, rng=3).weight)
    assert np.abs(Linear(16, 100, rng=3).weight).max() <= 0.25
    np.testing.assert_array_equal(Embedding(4, 5, rng=3).weight, Embedding(4, 5, rng=3).weight)


# Embedding


@pytest.mark.parametrize("shape", [(), (4,), (3, 5), (0,)])
def test_embedding_gradients(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    layer = Embedding(4, 3, dtype=np.float64, rng=1)
    indices = rng.integers(0, 3, shape)  # the last symbol never occurs
    dy = rng.standard_normal((*shape, 3))
    y, tape = layer.forward(indices)
    np.testing.assert_array_equal(y, layer.weight[indices])
    grads = layer.backward(tape, dy)
    assert grads.x is None
    flat = grads.flat.copy()
    assert layer.backward(tape, dy, out=grads, accumulate=True).flat is grads.flat
    np.testing.assert_allclose(grads.flat, 2 * flat)
    np.testing.assert_allclose(flat, weight_gradient(layer, lambda: float(np.sum(layer(indices) * dy))), atol=1e-8)


def test_embedding_errors() -> None:
    layer = Embedding(4, 3)
    with pytest.raises(ValueError, match="must be in"):
        layer([0, 4])
    with pytest.raises(ValueError, match="must be in"):
        layer([-1])
    with pytest.raises(TypeError, match="integers"):
        layer([0.5])


# Losses


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (0, 7), (3, 1)])
def test_cross_entropy_gradient(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    logits = rng.standard_normal(shape)
    targets = rng.integers(0, shape[-1], shape[:-1])
    loss, gradient = softmax_cross_entropy(logits, targets)
    chosen = np.take_along_axis(logits, np.expand_dims(targets, -1), -1)[..., 0]
    rows = np.log(np.exp(logits).sum(-1)) - chosen
    np.testing.assert_allclose(loss, rows.mean() if rows.size else 0.0, atol=1e-14)
    numeric = numeric_gradient(lambda: softmax_cross_entropy(logits, targets)[0], logits)
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)


def test_cross_entropy_ignores_padding(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((4, 3))
    targets = np.array([0, -100, 2, -100])
    loss, gradient = softmax_cross_entropy(logits, targets)
    kept_loss, kept = softmax_cross_entropy(logits[[0, 2]], targets[[0, 2]])
    np.testing.assert_allclose(loss, kept_loss)
    np.testing.assert_allclose(gradient[[0, 2]], kept)
    assert not gradient[[1, 3]].any()
    loss, gradient = softmax_cross_entropy(logits, np.full(4, 9), ignore_index=9)
    assert loss == 0
    assert not gradient.any()


def test_cross_entropy_in_place_and_in_blocks(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((70, 10, 101)).astype(np.float32)  # more than one block
    targets = rng.integers(0, 101, (70, 10))
    wide, wide_gradient = softmax_cross_entropy(logits.astype(np.float64), targets)
    strided = np.asfortranarray(logits)
    for given in (logits, strided):
        loss, gradient = softmax_cross_entropy(given, targets, out=given)
        assert gradient is given
        assert loss == pytest.approx(wide, rel=1e-6)
        np.testing.assert_allclose(gradient, wide_gradient, rtol=1e-4, atol=1e-9)


def test_cross_entropy_is_stable_in_float32() -> None:
    logits = np.array([[3e38, -3e38, 0], [1e4, 1e4, -np.inf]], np.float32)
    with np.errstate(over="ignore"):
        loss, gradient = softmax_cross_entropy(logits, [0, 1])
    assert loss == pytest.approx(np.log(2) / 2)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0.25, -0.25, 0]])


def test_cross_entropy_errors() -> None:
    logits = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="entry 3"):
        softmax_cross_entropy(logits, [0, 3])
    with pytest.raises(ValueError, match="entry -1"):
        softmax_cross_entropy(logits, [0, -1])
    with pytest.raises(ValueError, match="targets has shape"):
        softmax_cross_entropy(logits, [0])
    with pytest.raises(TypeError, match="integers"):
        softmax_cross_entropy(logits, [0.0, 1.0])
    with pytest.raises(ValueError, match="logits has shape"):
        softmax_cross_entropy(1.0, [])
    for out in (np.zeros((2, 3)), np.zeros((3, 3), np.float32), [0]):
        with pytest.raises(ValueError, match="out is"):
            softmax_cross_entropy(logits, [0, 1], out=out)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="overlaps"):
        softmax_cross_entropy(logits, [0, 1], out=logits[::-1])
    logits.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        softmax_cross_entropy(logits, [0, 1], out=logits)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_mean_squared_error_gradient(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    prediction = np.asarray(rng.standard_normal(shape))
    target = np.asarray(rng.standard_normal(shape))
    loss, gradient = mean_squared_error(prediction, target)
    assert loss == pytest.approx(np.mean((prediction - target) ** 2) if prediction.size else 0.0)
    numeric = numeric_gradient(lambda: mean_squared_error(prediction, target)[0], prediction)
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)
    assert mean_squared_error(prediction, target, out=prediction)[1] is prediction


def test_mean_squared_error_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match="target has shape"):
        mean_squared_error(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(TypeError, match="prediction"):
        mean_squared_error(np.zeros(3, complex), np.zeros(3))


# Clipping


def linear_gradients(scale: float, dtype: Any = np.float32) -> Any:
    layer = Linear(2, 2, bias=False, dtype=dtype)
    _, tape = layer.forward(np.eye(2))
    return layer.backward(tape, np.full((2, 2), scale))


def test_clip_grad_norm() -> None:
    one, two = linear_gradients(3.0), linear_gradients(4.0)
    assert clip_grad_norm([one, two], 20.0) == pytest.approx(10.0)
    assert one.flat[0] == 3
    assert clip_grad_norm([one, two], 1.0) == pytest.approx(10.0)
    np.testing.assert_allclose(one.flat, 0.3, rtol=1e-6)
    np.testing.assert_allclose(two.weights["weight"], 0.4, rtol=1e-6)
    assert clip_grad_norm(two, 10.0) == pytest.approx(0.8)


def test_clip_grad_norm_of_huge_and_nonfinite_gradients() -> None:
    grads = linear_gradients(1e30)
    assert clip_grad_norm(grads, 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(grads.flat, 0.5, rtol=1e-6)
    grads.flat[0] = np.nan
    assert np.isnan(clip_grad_norm(grads, 1.0))
    np.testing.assert_allclose(grads.flat[1:], 0.5, rtol=1e-6)
    with pytest.raises(ValueError, match="nan"):
        clip_grad_norm(grads, 1.0, error_if_nonfinite=True)
    with pytest.raises(ValueError, match="max_norm"):
        clip_grad_norm(grads, 0.0)


# Optimisers


def test_sgd_with_momentum() -> None:
    layer = Linear(2, 2, bias=False, dtype=np.float64, rng=0)
    expected = layer.weight.copy()
    grads = linear_gradients(1.0, np.float64)
    optimizer = SGD([layer], 0.1, momentum=0.5)
    velocity = 0.0
    for _ in range(3):
        optimizer.step([grads])
        velocity = 0.5 * velocity + 1.0
        expected -= 0.1 * velocity
        np.testing.assert_allclose(layer.weight, expected)


def test_adam_against_the_paper(rng: np.random.Generator) -> None:
    layer = Linear(300, 200, dtype=np.float64, rng=0)  # more than one block
    _, tape = layer.forward(rng.standard_normal((5, 300)))
    grads = layer.backward(tape, rng.standard_normal((5, 200)))
    expected = np.concatenate([w.ravel() for w in layer.state_dict().values()])
    optimizer = Adam([layer], 0.01, betas=(0.8, 0.9))
    mean = square = np.zeros_like(expected)
    for step in range(1, 4):
        g = grads.flat * step
        optimizer.lr = 0.01 / step
        kept = grads.flat.copy()
        grads.flat[...] = g
        optimizer.step([grads])
        np.testing.assert_array_equal(grads.flat, g)
        grads.flat[...] = kept
        mean = 0.8 * mean + 0.2 * g
        square = 0.9 * square + 0.1 * g * g
        expected -= 0.01 / step * (mean / (1 - 0.8**step)) / (np.sqrt(square / (1 - 0.9**step)) + 1e-8)
        got = np.concatenate([w.ravel() for w in layer.state_dict().values()])
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [lambda layers: SGD(layers, 0.2, momentum=0.9), lambda layers: Adam(layers, 0.05)])
def test_optimisers_fit_a_line_with_two_layers(make: Callable[[Any], Any], rng: np.random.Generator) -> None:
    embedding, head = Embedding(5, 3, rng=1), Linear(3, 1, rng=2)
    optimizer = make([embedding, head])
    indices = np.arange(5)
    losses = []
    for _ in range(200):
        vectors, embedding_tape = embedding.forward(indices)
        y, head_tape = head.forward(vectors)
        loss, dy = mean_squared_error(y, indices[:, None] * 0.5)
        losses.append(loss)
        head_grads = head.backward(head_tape, dy)
        optimizer.step([embedding.backward(embedding_tape, head_grads.x), head_grads])
    assert losses[-1] < 1e-3 < losses[0]


def test_optimisers_reject_what_does_not_fit() -> None:
    layer = Linear(2, 2, bias=False, rng=0)
    before = layer.weight
    optimizer = Adam([layer, Linear(3, 3)])
    with pytest.raises(ValueError, match="one for each"):
        optimizer.step([linear_gradients(1.0)])
    with pytest.raises(ValueError, match=r"gradients\[1\]"):
        optimizer.step([linear_gradients(1.0), linear_gradients(1.0)])
    assert layer.weight is before
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="lr"):
            SGD([layer], bad)
    with pytest.raises(ValueError, match="momentum"):
        SGD([layer], 0.1, momentum=1.0)
    with pytest.raises(ValueError, match=r"betas\[1\]"):
        Adam([layer], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="eps"):
        Adam([layer], eps=-1.0)


def test_optimisers_agree_with_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((6, 4))
    for name, options in (("SGD", {"momentum": 0.9}), ("Adam", {"betas": (0.8, 0.95)})):
        layer = Linear(4, 3, dtype=np.float64, rng=1)
        ours = {"SGD": SGD, "Adam": Adam}[name]([layer], 0.1, **options)
        weight, bias = (torch.tensor(w, requires_grad=True) for w in layer.state_dict().values())
        theirs = getattr(torch.optim, name)([weight, bias], 0.1, **options)
        for _ in range(5):
            y, tape = layer.forward(x)
            ours.step([layer.backward(tape, 2 * y)])
            theirs.zero_grad()
            (torch.nn.functional.linear(torch.tensor(x), weight, bias) ** 2).sum().backward()
            theirs.step()
        np.testing.assert_allclose(layer.weight, weight.detach().numpy(), rtol=1e-9)
        np.testing.assert_allclose(layer.bias, bias.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("make", [lambda: Linear(3, 2, rng=0), lambda: Embedding(3, 2, rng=0)])
def test_copies_hold_their_weights_as_the_original(make: Any, how: Any) -> None:
    layer = make()
    copied = how(layer)
    assert np.array_equal(copied.weights.flat, layer.weights.flat)
    assert np.shares_memory(copied.weight, copied.weights.flat)
    for array in (copied.weight, copied.weights.flat):
        assert not array.flags.writeable
    with copied.edit() as weights:
        weights["weight"] += 1
    assert np.array_equal(copied.weight, layer.weight + np.float32(1))


def test_assigned_weights() -> None:
    layer = Linear(3, 2, rng=0)
    tape = layer.forward(np.ones((4, 3)))[1]
    layer.weight, layer.bias = np.ones((2, 3)), [1, 2]
    assert np.array_equal(layer(np.ones((1, 3))), [[4, 5]])
    with pytest.raises(ValueError, match="tape"):
        layer.backward(tape, np.ones((4, 2)))
    with pytest.raises(ValueError, match="weight"):
        layer.weight = np.ones((3, 2))
    with pytest.raises(KeyError, match="bias"):
        Linear(3, 2, bias=False).bias = np.ones(2)
    embedding = Embedding(3, 2)
    embedding.weight = np.arange(6).reshape(3, 2)
    assert np.array_equal(embedding([2]), [[4, 5]])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: Linear(2, 2, bias="no"), TypeError, "bias"),
        (lambda: Linear(10**10, 10**10), ValueError, "address"),
        (lambda: Embedding(10**12, 10**12), ValueError, "address"),
        (lambda: Linear(2, 2).load_state_dict([1]), TypeError, "mapping"),
        (lambda: Linear(2, 2).backward(None, np.ones((1, 2))), TypeError, "tape"),
        (lambda: Linear(2, 2).backward(Embedding(2, 2).forward([1])[1], np.ones((1, 2))), ValueError, "tape"),
        (lambda: Embedding(2, 2)([[1], [1, 2]]), ValueError, "indices"),
        (lambda: Embedding(2, 2)(np.ma.array([0, 1], mask=[0, 1])), TypeError, "indices"),
        (lambda: Embedding(2, 2)(np.array([2**64 - 1], np.uint64)), ValueError, "indices"),
        (lambda: softmax_cross_entropy(np.ones((1, 2)), np.array([2**64 - 100], np.uint64)), ValueError, "targets"),
        (lambda: softmax_cross_entropy(np.ones((2, 2)), [[1], [1, 2]]), ValueError, "targets"),
        (lambda: clip_grad_norm([None], 1.0), TypeError, "gradients"),
        (lambda: clip_grad_norm([np.ones(3)], 1.0), TypeError, "gradients"),
        (lambda: clip_grad_norm([], "1"), TypeError, "max_norm"),
        (lambda: Adam([Linear(2, 2)]).step([None]), TypeError, "gradients"),
        (lambda: Adam([Linear(2, 2)], lr="1"), TypeError, "lr"),
        (lambda: Adam([Linear(2, 2)], betas=(0.9,)), TypeError, "betas"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_out_of_another_kind() -> None:
    layer = Linear(2, 2)
    with pytest.raises(TypeError, match="out"):
        layer.backward(layer.forward(np.ones((1, 2)))[1], np.ones((1, 2)), out=3)


def test_gradients_may_come_from_a_generator() -> None:
    layer = Linear(2, 2)
    grads = layer.backward(layer.forward(np.ones((1, 2)))[1], np.ones((1, 2)))
    assert clip_grad_norm((g for g in [grads]), 100.0) > 0
    before = layer.weight
    SGD([layer], 0.5).step(g for g in [grads])
    assert np.allclose(layer.weight, before - 0.5 * grads.weights["weight"])


def test_big_endian_logits_keep_their_precision() -> None:
    scores = np.random.default_rng(0).standard_normal((3, 4))
    want = softmax_cross_entropy(scores, [0, 1, 2])
    got = softmax_cross_entropy(scores.astype(">f8"), [0, 1, 2])
    assert got[0] == want[0]
    assert got[1].dtype == np.float64
