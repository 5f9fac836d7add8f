"""The graph hash of NAS-Bench-101, for the spaces whose cells it names."""

import hashlib

import numpy as np


def nasbench101_hash(matrix, operations):
    """The graph hash of Ying et al., 2019: labels gather those of their neighbours, as often as there are nodes."""
    degrees = zip(matrix.sum(1), matrix.sum(0), operations, strict=True)
    labels = [hashlib.md5(str(d).encode()).hexdigest() for d in degrees]
    for _ in operations:
        labels = [
            hashlib.md5(
                "|".join(
                    ["".join(sorted(labels[u] for u in np.flatnonzero(side[:, v]))) for side in (matrix, matrix.T)]
                    + [labels[v]]
                ).encode()
            ).hexdigest()
            for v in range(len(operations))
        ]
    return hashlib.md5(str(sorted(labels)).encode()).hexdigest()
