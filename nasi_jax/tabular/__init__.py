"""Published benchmark tables, and how well a score ranks what is in them."""

from nasi_jax.tabular.closed_form import Expectation, best_of_random
from nasi_jax.tabular.nats import from_nats_bench
from nasi_jax.tabular.statistics import STATISTICS, Ranking, Statistic, as_json, rank, rank_sum
from nasi_jax.tabular.table import Table, header, read_rows

__all__ = [
    "STATISTICS",
    "Expectation",
    "Ranking",
    "Statistic",
    "Table",
    "as_json",
    "best_of_random",
    "from_nats_bench",
    "header",
    "rank",
    "rank_sum",
    "read_rows",
]
