"""Samples in shards: what comes back of them, in whatever order they were written, and what measuring them takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptgen.errors import DataError
from promptgen.metrics.diversity import pairwise_distance
from promptgen.metrics.features import FeatureStatistics
from promptgen.metrics.probabilities import MeanProbabilities
from promptgen.metrics.rows import random_subset
from promptgen.metrics.sizes import CHUNK, PAIRS
from steps.measuring.samples import Samples, SampleWriter
from tests.measure_memory import peak
from tests.steps.projects import arrays_of

N, BLOCK = 2 * CHUNK + 700, 256

TILES = np.arange(54, dtype=np.uint8).reshape(2, 3, 3, 3).transpose(0, 2, 3, 1)
"""Pictures whose memory is in another order, as those are that come from a network."""


def rows(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Samples whose shards were written from the last to the first, and what they hold."""
    whole = {"features": np.asfortranarray(rows(N, 5)), "label": np.arange(N, dtype=np.int16), "first": rows(300, 2)}
    writer = SampleWriter(tmp_path_factory.mktemp("sample"))
    for start in reversed(range(0, N, BLOCK)):
        parts = {name: array[start : start + BLOCK] for name, array in whole.items()}
        writer.add(start, {name: part for name, part in parts.items() if len(part)})
    labels = {"judge": {"hair": ["short", "long"], "age": ["young", "old"]}, "classifier": {"hair": ["short", "long"]}}
    return writer.finish(labels, {"tiles": TILES}), whole, labels


def test_everything_comes_back_in_order(written):
    samples, whole, labels = written
    assert len(samples) == N
    assert list(samples.labels) == list(labels)
    assert samples.labels == labels
    content = arrays_of(samples)
    np.testing.assert_array_equal(content.pop("tiles"), TILES)
    assert content.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(content[name], array)


def test_the_order_in_which_pictures_are_made_does_not_matter(tmp_path):
    sheets, contents = {"tiles": TILES, "sweep": TILES[:1]}, []
    for name, order in (("one", ["tiles", "sweep"]), ("other", ["sweep", "tiles"])):
        writer = SampleWriter(tmp_path / name)
        writer.add(0, {"label": np.arange(3)})
        writer.finish({}, {sheet: sheets[sheet] for sheet in order})
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")})
    assert contents[0] == contents[1]


def test_rows_are_read_by_slice_by_index_and_in_parts(written):
    samples, whole, _ = written
    column = samples["features"]
    np.testing.assert_array_equal(column[250:530], whole["features"][250:530])
    chosen = torch.tensor([N - 1, 0, 256, 255, 0])
    np.testing.assert_array_equal(column[chosen], whole["features"][chosen])
    odd = column.part(1, 2)
    assert len(odd) == N // 2
    np.testing.assert_array_equal(odd[-3:], whole["features"][1::2][-3:])
    assert [len(part) for (part,) in samples.chunks("label")] == [CHUNK, CHUNK, 700]


def test_metrics_of_a_column_are_those_of_the_array(written):
    samples, whole, _ = written
    statistics, other = FeatureStatistics.of(samples["features"]), FeatureStatistics()
    other.update(torch.from_numpy(whole["features"]))
    torch.testing.assert_close(statistics.covariance, other.covariance)
    unit = torch.nn.functional.normalize(samples["features"][:], dim=1)
    assert pairwise_distance(unit, resamples=50) == pairwise_distance(unit.numpy(), resamples=50)


def test_mean_probabilities_of_chunks_are_those_of_all():
    probabilities = np.random.default_rng(1).dirichlet([1.0, 2.0, 3.0], size=N)
    found = MeanProbabilities.of(probabilities)
    np.testing.assert_allclose(found.mean, probabilities.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.variances, probabilities.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(probabilities, rowvar=False, bias=True), atol=1e-12)
    probabilities[-1] = 1
    with pytest.raises(DataError, match=f"for sample {N - 1};"):
        MeanProbabilities.of(probabilities)


def test_a_subset_is_everything_or_random_and_stays_the_same():
    assert random_subset(PAIRS, 1).tolist() == list(range(PAIRS))
    subset, again, other = random_subset(10 * PAIRS, 1), random_subset(10 * PAIRS, 1), random_subset(10 * PAIRS, 2)
    assert torch.equal(subset, again)
    assert not torch.equal(subset, other)
    assert len(subset.unique()) == PAIRS
    assert 0.45 < float(subset.double().mean()) / (10 * PAIRS) < 0.55


@pytest.mark.parametrize("fault", ["missing", "damaged", "no list"])
def test_samples_that_cannot_be_read_are_one_line(tmp_path, fault):
    writer = SampleWriter(tmp_path)
    writer.add(0, {"label": np.zeros(3)})
    samples = writer.finish({})
    shard = tmp_path / "samples" / "00000000.safetensors"
    if fault == "missing":
        shard.unlink()
    elif fault == "damaged":
        shard.write_bytes(b"no tensors")
    else:
        (tmp_path / "samples.json").write_text("[]")
    with pytest.raises(DataError, match=r"cannot be read \(.*\); run `promptgen run`"):
        Samples(tmp_path)["label"][:] if fault == "no list" else samples["label"][:]


@pytest.mark.long
@pytest.mark.slow
def test_the_memory_of_measuring_does_not_grow_with_the_samples():
    """What is read of 20,000 samples is 33 MB: features, identities and poses of all would show."""
    assert peak(20_000) < 1.1 * peak(1_000)
