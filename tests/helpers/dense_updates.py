"""Dense updates dW of adapters that were read."""

import numpy as np

from analysis.adapters import Adapter, Matrix


def dense(adapter: Adapter, matrix: Matrix) -> np.ndarray:
    update = adapter.load(matrix)
    assert update.A.shape[1] == matrix.d_in and update.B.shape[0] == matrix.d_out
    return (update.scaling if update.scaling is not None else 1.0) * update.B.astype(float) @ update.A.astype(float)


def places(adapter: Adapter) -> list[tuple[int | None, str]]:
    return [(matrix.layer, matrix.weight) for matrix in adapter.matrices]


def of(adapter: Adapter, layer: int | None, weight: str) -> np.ndarray:
    (matrix,) = [m for m in adapter.matrices if (m.layer, m.weight) == (layer, weight)]
    return dense(adapter, matrix)
