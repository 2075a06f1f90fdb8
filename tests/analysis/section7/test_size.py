"""Section 7's arithmetic at the size of GPT-3 175B (d = 12288, 96 layers of two matrices), in seconds of one core.

Each is a process of its own, this file, with one thread: numpy's OpenBLAS waits for its threads by spinning, so that
where other processes share the cores r x r decompositions become fifty times as slow with two threads.
"""

import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from analysis.section7.projection import projections, top_directions
from analysis.section7.subspace import directions, phi_grid, svd
from analysis.section7.update import Update

D, PAIRS, RANKS = 12288, 96 * 2, (8, 64)
WEIGHT_NORM, TOP_NORM = 61.95, 37.71
"""Table 7: of W_q, and of its projection on its first 64 directions."""


def drawn(r: int, generator: np.random.Generator, deficient: bool = False) -> Update:
    """Draws an update; a deficient one has a B of half the rank."""
    A, B = (generator.standard_normal(shape, dtype=np.float32) for shape in ((r, D), (D, r)))
    if deficient:
        B[:, r // 2 :] = B[:, : r // 2]
    return Update(0, "q", f"r{r}", A, B, 1 / r)


def weight(generator: np.random.Generator) -> np.ndarray:
    """Draws a weight with the norms of Table 7: 200 directions that fall like i^-0.5 out of a Gaussian bulk."""
    s = np.arange(1, 201) ** -0.5
    s *= TOP_NORM / np.linalg.norm(s[:64])
    bulk = np.sqrt(WEIGHT_NORM**2 - np.square(s).sum()) / D
    U, V = (np.linalg.qr(generator.standard_normal((D, 200), dtype=np.float32))[0] for _ in range(2))
    W = generator.standard_normal((D, D), dtype=np.float32)
    W *= np.float32(bulk)
    W += (U * s.astype(np.float32)) @ V.T
    return W


def measure(what: str) -> None:
    """Prints seconds and GiB: of phi on A and on both sides of dW for all pairs, or of a block of Table 7."""
    generator = np.random.default_rng(0)
    if what == "project":
        W, update = weight(generator), drawn(RANKS[-1], generator)
        began = time.process_time()
        projections(W, update, top_directions(W, RANKS[-1], generator))
    else:
        pair = [drawn(r, generator, deficient=what == "deficient") for r in RANKS]
        began = time.process_time()
        for _ in range(PAIRS):
            one, other = map(svd, pair)
            for U, V in ((one.U, other.U), (one.V, other.V), [directions(update.A) for update in pair]):
                phi_grid(U, V)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    print(json.dumps([time.process_time() - began, peak]))


@pytest.mark.long
@pytest.mark.parametrize(("what", "limit"), [("compare", 20), ("deficient", 20), ("project", 120)])
def test_the_size_of_gpt3_fits_two_cores(what: str, limit: float) -> None:
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, what], stdout=subprocess.PIPE, text=True, check=True, env=alone)
    seconds, gib = json.loads(done.stdout)
    assert seconds <= limit and gib <= 2


if __name__ == "__main__":
    measure(sys.argv[1])
