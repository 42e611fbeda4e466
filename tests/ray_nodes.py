"""A Ray cluster of two nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def add_node(cluster: Any) -> Any:
    """One of one core, with an address of its own, so that whoever connects from this machine is at the head."""
    node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")
    cluster.wait_for_nodes()
    return node


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Each of one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_worker_niceness", "0")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        add_node(cluster)
        try:
            yield cluster
        finally:
            cluster.shutdown()
