"""Seconds and memory of Section 7's arithmetic at the size of GPT-3 175B: d = 12288, 96 layers, two matrices a layer.

    OPENBLAS_NUM_THREADS=1 python -m analysis.bench.subspace compare --workers 2
    OPENBLAS_NUM_THREADS=1 python -m analysis.bench.subspace compare --workers 2 --deficient
    OPENBLAS_NUM_THREADS=1 python -m analysis.bench.subspace project

`compare` takes 192 pairs of updates, r = 8 against r = 64: the decompositions of both dW and the directions of both A,
and phi on A, and on both sides of dW. With `--deficient` half of the columns of B repeat the others: a factor that
is rank-deficient is decomposed by reflections, which takes longer. `project` takes what Table 7 needs of one weight of
float32: its first 64 directions, and the projections of one update. The updates are Gaussian, drawn outside of the
clock; the weight has 200 directions that fall like i^-0.5 out of a Gaussian bulk, with the norms that the paper prints
for layer 48's W_q (61.95, of which 37.71 in 64 directions). Prints JSON.

numpy's OpenBLAS waits for its threads by spinning: where other processes share the cores, r x r decompositions become
fifty times as slow with two threads as with one. One thread each, and two workers, are as fast on idle cores.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float

from analysis.section7.projection import projections, top_directions
from analysis.section7.subspace import directions, phi_grid, svd
from analysis.section7.update import Update

D, LAYERS, MATRICES, RANKS = 12288, 96, 2, (8, 64)
WEIGHT_NORM, TOP_NORM = 61.95, 37.71
"""Table 7: of W_q, and of its projection on its first 64 directions."""


def drawn(d: int, r: int, generator: np.random.Generator, deficient: bool = False) -> Update:
    """Draws an update; a deficient one has a B of half the rank."""
    A, B = (generator.standard_normal(shape, dtype=np.float32) for shape in ((r, d), (d, r)))
    if deficient:
        B[:, (r + 1) // 2 :] = B[:, : r // 2]
    return Update(0, "q", f"r{r}", A, B, 1 / r)


def compared(pair: Sequence[Update]) -> list[Float[np.ndarray, "i j"]]:
    """Returns phi on A, and on the right and the left of dW."""
    one, other = (svd(update) for update in pair)
    starts = [directions(update.A) for update in pair]
    return [phi_grid(*starts), phi_grid(one.V, other.V), phi_grid(one.U, other.U)]


def compare(d: int, pairs: int, workers: int, deficient: bool) -> Callable[[], object]:
    """Prepares the comparison of updates; a few are drawn and taken in turn."""
    generator = np.random.default_rng(0)
    pool = [[drawn(d, r, generator, deficient) for r in RANKS] for _ in range(4)]

    def run() -> object:
        with ThreadPoolExecutor(workers) as executor:
            return list(executor.map(compared, (pool[i % len(pool)] for i in range(pairs))))

    return run


def weight(d: int, generator: np.random.Generator) -> Float[np.ndarray, "d d"]:
    """Draws a weight of float32 with the norms of Table 7."""
    count = 200
    s = np.arange(1, count + 1) ** -0.5
    s *= TOP_NORM / np.linalg.norm(s[:64])
    bulk = np.sqrt(WEIGHT_NORM**2 - np.square(s).sum()) / d
    U, V = (np.linalg.qr(generator.standard_normal((d, count), dtype=np.float32))[0] for _ in range(2))
    return (generator.standard_normal((d, d), dtype=np.float32) * np.float32(bulk)) + (U * s.astype(np.float32)) @ V.T


def project(d: int) -> Callable[[], object]:
    """Prepares a block of Table 7."""
    generator = np.random.default_rng(0)
    W, update = weight(d, generator), drawn(d, RANKS[-1], generator)
    return lambda: projections(W, update, top_directions(W, RANKS[-1], generator))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one of the two and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "project"))
    parser.add_argument("--d", type=int, default=D)
    parser.add_argument("--pairs", type=int, default=LAYERS * MATRICES)
    parser.add_argument("--workers", type=int, default=1, help="threads that compare (default: %(default)s)")
    parser.add_argument("--deficient", action="store_true", help="compare updates whose B is rank-deficient")
    options = parser.parse_args(arguments)
    run = (
        compare(options.d, options.pairs, options.workers, options.deficient)
        if options.what == "compare"
        else project(options.d)
    )
    began, spent = time.perf_counter(), time.process_time()
    run()
    found = {
        "what": options.what,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - spent, 2),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / 2**30, 3),
    }
    print(json.dumps(found))


_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system reports the peak."""


if __name__ == "__main__":
    main()
