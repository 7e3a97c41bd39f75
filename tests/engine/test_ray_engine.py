"""The engine on a real Ray cluster: a head and two nodes that are processes of this machine."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from promptgen.engine.config import RayConfig
from promptgen.errors import EngineError
from tests.engine.recipes import Squares

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, and its sockets
]

ROOT = Path(__file__).parents[2]
NUMBERS = list(range(8))
EXPECTED = [number**2 for number in NUMBERS]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    from promptgen.engine.ray_cluster import SETTINGS

    os.environ.update(SETTINGS)
    memory = 80 << 20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": memory},
    )
    cluster.nodes = [cluster.add_node(num_cpus=1, object_store_memory=memory, wait=False) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def config(cluster):
    return RayConfig(type="ray", address=cluster.address, workers=2, gpus_per_worker=0.0)


@pytest.fixture(scope="module")
def engine(cluster):
    from promptgen.engine.dispatch import Dispatcher
    from promptgen.engine.ray_cluster import RayCrew

    config = RayConfig(type="ray", address=cluster.address, workers=2, gpus_per_worker=0.0)
    engine = Dispatcher(2, lambda: RayCrew(config))
    yield engine
    engine.close()


def test_a_cluster_gives_the_results_of_one_process(engine):
    assert dict(engine.map(Squares(seconds=0.2), NUMBERS)) == dict(enumerate(EXPECTED))


def test_the_print_of_this_process_stays_its_own(engine):
    """Ray's progress bars, which its driver starts with the first line of a worker, would replace it."""
    from ray.experimental import tqdm_ray

    tqdm_ray.instance()
    assert type(print).__name__ == "builtin_function_or_method"


@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_a_shard_whose_worker_fails_is_made_again(engine, monkeypatch, tmp_path, caplog, fault):
    if fault == "hang":
        monkeypatch.setattr(engine, "deadline", 4.0)
    with caplog.at_level(logging.WARNING, "promptgen"):
        results = dict(engine.map(Squares(fault, folder=tmp_path, once=True), NUMBERS))
    assert results == dict(enumerate(EXPECTED))
    assert sum("shard 3 of 8" in line for line in caplog.messages) == 1


def test_an_error_of_the_users_code_ends_the_work(engine, tmp_path):
    with pytest.raises(ZeroDivisionError, match="of the user's model"):
        dict(engine.map(Squares("error", folder=tmp_path), NUMBERS))


def test_a_cluster_that_is_too_small_is_refused(engine, cluster):
    """In the same process, which has joined the cluster already."""
    from promptgen.engine.ray_cluster import RayCrew

    dict(engine.map(Squares(), NUMBERS))
    for wish, lacking in (({"workers": 2, "gpus_per_worker": 1.0}, "0 GPUs"), ({"workers": 3}, "2 CPUs")):
        wanted = {"gpus_per_worker": 0.0, **wish}
        with pytest.raises(EngineError, match=lacking) as caught:
            RayCrew(RayConfig(type="ray", address=cluster.address, **wanted))
        assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_node_that_is_gone_is_replaced_by_the_others(engine, cluster, caplog):
    """Its shards are made again elsewhere, and another node may join; its processes may live for some seconds."""
    results = engine.map(Squares(seconds=2.0), NUMBERS)
    got = dict([next(results)])
    cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)
    cluster.nodes.append(cluster.add_node(num_cpus=1, object_store_memory=80 << 20))
    with caplog.at_level(logging.WARNING, "promptgen"):
        got |= dict(results)
    assert got == dict(enumerate(EXPECTED))
    assert any("is made again" in line or "another one is started" in line for line in caplog.messages)
