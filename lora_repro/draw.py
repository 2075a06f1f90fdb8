"""Randomness by name: every stream is keyed by what it is for, never by when it is drawn.

So a parameter starts alike whatever else the model holds, on any device and with any number of threads, and no
method, rank or dtype changes the order of the examples.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_only_shapes: ContextVar[bool] = ContextVar("only_shapes", default=False)
"""True while `only_shapes` is in force, in its thread alone."""


@contextmanager
def only_shapes() -> Iterator[None]:
    """Lets `uniform` and `normal` return arrays without values, at no cost, for a model whose sizes alone matter."""
    before = _only_shapes.set(True)
    try:
        yield
    finally:
        _only_shapes.reset(before)


def generator(*key: str | int | tuple[int, ...]) -> np.random.Generator:
    """Returns the counter-based generator (Philox) of this key; equal keys give equal streams.

    The same on every machine; numpy may change what a version draws from them, which golden tests would show.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8")))


def uniform(seed: int, name: str, shape: tuple[int, ...], bound: float) -> np.ndarray:
    """Draws a float32 array from U(-bound, bound), keyed by (seed, parameter name, shape).

    The shape is a part of the key, so A at r = 8 is not the first rows of A at r = 64: otherwise an untrained
    phi(A_8, A_64) would be 1, and Figure 3 of the paper would seem to hold without any training.
    """
    if _only_shapes.get():
        return np.empty(shape, np.float32)
    draws = generator("parameter", seed, name, shape).random(shape, dtype=np.float32)
    return (2 * draws - 1) * np.float32(bound)


def normal(seed: int, name: str, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Draws a float32 array from N(0, std), keyed as `uniform` is."""
    if _only_shapes.get():
        return np.empty(shape, np.float32)
    return (generator("parameter", seed, name, shape).standard_normal(shape) * std).astype(np.float32)


def random_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draws a matrix of a model whose weights are random (tiny_bert): the same for every run."""
    return uniform(0, name, shape, bound=0.1)
