"""Exact nearest-neighbour search in a bank of features of any size."""

import numpy as np

from ..core.checks import checked_ks
from ..core.errors import InputError, unknown_name
from ..core.extras import extra

METRICS = ("cosine", "euclidean")
BLOCK = 65_536  # bank rows that are normalised and searched at a time


def nearest(
    bank: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    metric: str = "cosine",
    exclude: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest rows of a bank for each query, exactly, with faiss.

    The bank may be a memory map of any float type: it is read in blocks of 65 536 rows. Memory
    beyond the arguments: two blocks and the queries in float32, and about four times the results;
    a bank of 1.35 million x 384 with 1000 queries and k = 200 needs less than 0.3 GB. Neighbours
    at the same distance come in any order.

    Args:
        bank: [rows, width].
        queries: [n, width].
        k: Number of neighbours; a smaller bank gives all of its rows.
        metric: "cosine" (similarity, greatest first) or "euclidean" (distance, least first).
        exclude: For each query the bank row that is the query itself and is left out; -1 for none.

    Returns:
        Similarities or distances (float32) and bank rows (int64), both [n, min(k, rows)] (one fewer
        row with `exclude`).

    Raises:
        InputError: If the bank is empty, widths differ, values are NaN, or `exclude` names no row
            of the bank.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    (k,) = checked_ks((k,))
    _check_shapes(bank, queries)
    if exclude is not None:
        exclude = _checked_exclude(exclude, bank, queries)
    wanted = min(k + (exclude is not None), len(bank))
    values, rows = _search(bank, _prepared(queries, metric, "queries"), wanted, metric)
    if exclude is not None:
        values, rows = _without_self(values, rows, exclude)
    return (values if metric == "cosine" else np.sqrt(np.maximum(values, 0))), rows


def _check_shapes(bank: np.ndarray, queries: np.ndarray) -> None:
    for values, what in ((bank, "bank"), (queries, "queries")):
        if np.ndim(values) != 2:
            raise InputError(
                f"the {what} of the kNN are of shape {np.shape(values)}; [n, width] is needed."
            )
    if not len(bank):
        raise InputError("the bank of the kNN is empty: the training split holds no images.")
    if bank.shape[1] != queries.shape[1]:
        raise InputError(
            f"bank of width {bank.shape[1]} and queries of width {queries.shape[1]} "
            "are of different backbones."
        )


def _checked_exclude(exclude: np.ndarray, bank: np.ndarray, queries: np.ndarray) -> np.ndarray:
    exclude = np.asarray(exclude)
    if (
        exclude.shape != (len(queries),)
        or exclude.dtype.kind not in "iu"
        or ((exclude < -1) | (exclude >= len(bank))).any()
    ):
        raise InputError(
            f"exclude: one row of the bank (0 to {len(bank) - 1}) for each query is needed, "
            "or -1 for none."
        )
    return exclude


def _search(
    bank: np.ndarray, queries: np.ndarray, k: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Search block by block; Euclidean distances stay squared."""
    with extra("evaluation"):
        import faiss

    kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    sign = -1 if metric == "cosine" else 1
    values, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(bank), BLOCK):
        block = None  # frees the previous block first
        block = _prepared(bank[start : start + BLOCK], metric, "bank")
        new_values, new_rows = faiss.knn(queries, block, min(k, len(block)), metric=kind)
        values, rows = np.hstack([values, new_values]), np.hstack([rows, new_rows + start])
        if start:
            order = np.argsort(sign * values, axis=1, kind="stable")[:, :k]
            values, rows = np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1)
    return values, rows


def _without_self(
    values: np.ndarray, rows: np.ndarray, exclude: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    is_self = rows == exclude[:, None]
    # nothing to leave out: drop the farthest neighbour, so that every query keeps as many
    is_self[~is_self.any(1), -1] = True
    shape = (len(rows), rows.shape[1] - 1)
    if not shape[1]:
        raise InputError("the bank of the kNN holds nothing but the query itself.")
    return values[~is_self].reshape(shape), rows[~is_self].reshape(shape)


def _prepared(values: np.ndarray, metric: str, what: str) -> np.ndarray:
    """Return contiguous float32, of length 1 for the cosine; the argument stays as it is."""
    prepared = np.ascontiguousarray(values, np.float32)
    squares = np.einsum("ij,ij->i", prepared, prepared)  # needs no temporary array of that size
    if not np.isfinite(squares).all():
        raise InputError(
            f"the {what} of the kNN hold NaN or infinite features; extract them again."
        )
    if metric == "cosine":
        length = np.maximum(np.sqrt(squares), 1e-12)[:, None]
        target = None if np.may_share_memory(prepared, values) else prepared
        prepared = np.divide(prepared, length, out=target)
    return prepared
