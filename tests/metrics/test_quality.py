"""Distances of two sets of images, against closed forms, and what they cost."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.features import FeatureStatistics, image_features
from promptgen.metrics.precision_recall import DISTANCES, precision_recall
from promptgen.metrics.quality import compare, frechet_distance, kernel_distance
from promptgen.metrics.shares import wilson
from promptgen.metrics.sizes import LEAST_SAMPLES
from promptgen.seeding import stream


def normal(n, dim=4, name="first", scale=1.0, shift=0.0):
    return shift + scale * torch.randn(n, dim, generator=stream(0, "quality", name))


def statistics(*batches):
    found = FeatureStatistics()
    for batch in batches:
        found.update(batch)
    return found


def moments(mean, covariance):
    """Statistics of exactly this mean and covariance."""
    found = FeatureStatistics()
    found.n, found.mean, found._scatter = 10**9, mean, covariance * (10**9 - 1)
    return found


def rotation(dim):
    return torch.linalg.qr(torch.randn(dim, dim, generator=stream(0, "rotation"), dtype=torch.float64))[0]


def test_the_frechet_distance_of_gaussians_is_the_closed_form():
    a, b = torch.tensor([1.0, 4.0, 0.25]).double(), torch.tensor([9.0, 1.0, 0.04]).double()
    mean, turn = torch.tensor([1.0, -2.0, 0.5]).double(), rotation(3)
    found = frechet_distance(moments(0 * mean, turn @ a.diag() @ turn.T), moments(mean, turn @ b.diag() @ turn.T))
    expected = mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()  # covariances that commute
    assert found.value == pytest.approx(float(expected), rel=1e-6)
    assert found.floor < 1e-7


def test_the_frechet_distance_of_covariances_that_do_not_commute():
    a, b = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double(), torch.tensor([[1.0, -0.3], [-0.3, 3.0]]).double()
    # A root of a 2 x 2 matrix M has the trace sqrt(tr M + 2 sqrt(det M)).
    product = a @ b
    root = (product.trace() + 2 * product.det().sqrt()).sqrt()
    found = frechet_distance(moments(torch.zeros(2).double(), a), moments(torch.zeros(2).double(), b))
    assert found.value == pytest.approx(float(a.trace() + b.trace() - 2 * root), rel=1e-9)


def test_samples_of_gaussians_come_near_the_closed_form():
    first, second = normal(20_000), normal(20_000, name="second", scale=2.0, shift=1.0)
    found = frechet_distance(statistics(first), statistics(second))
    assert found.value == pytest.approx(4 * (1 + 1), rel=0.03)
    assert (found.n, found.n_reference, found.dim, found.few_samples) == (20_000, 20_000, 4, False)


def test_the_floor_is_what_chance_shows():
    scale = torch.tensor([0.1, 1.0, 1.0, 3.0])
    values, floors = [], []
    for index in range(60):
        rows = [normal(n, name=f"floor {index} {n}", scale=scale) for n in (400, 800)]
        found = frechet_distance(*map(statistics, rows))
        values.append(found.value)
        floors.append(found.floor)
    spread = torch.tensor(values).std() / 60**0.5
    assert sum(values) / 60 == pytest.approx(sum(floors) / 60, abs=4 * float(spread))


@pytest.mark.parametrize(("n", "few"), [(4, True), (5, False)])
def test_few_samples_are_told(n, few):
    found = frechet_distance(statistics(normal(n)), statistics(normal(50)))
    assert found.few_samples == few


def test_statistics_of_batches_are_those_of_all_samples_even_far_from_the_origin():
    rows = normal(1000).double() + 1e4
    rows = rows.float()
    found = statistics(*rows.split(37), torch.zeros(0, 4))
    assert found.n == 1000
    torch.testing.assert_close(found.mean, rows.double().mean(dim=0))
    torch.testing.assert_close(found.covariance, rows.double().T.cov(), rtol=1e-9, atol=1e-9)


def test_identical_sets():
    rows = normal(300, dim=8)
    found = compare(rows, rows.clone())
    assert found.frechet.value == pytest.approx(0, abs=1e-6)
    assert (found.precision.value, found.recall.value) == (1.0, 1.0)
    assert found.precision == wilson(300, 300)
    assert abs(found.kernel.value) < 4 * found.kernel.error


def gaussian_moments(mean, deviation):
    return mean, mean**2 + deviation**2, mean**3 + 3 * mean * deviation**2


def test_the_kernel_distance_of_gaussians_is_the_closed_form():
    """In one dimension (1 + x y)^3 compares the first three moments, with weights 3, 3 and 1."""
    first, second = normal(20_000, 1), normal(20_000, 1, name="second", scale=1.3, shift=0.4)
    pairs = zip(gaussian_moments(0.0, 1.0), gaussian_moments(0.4, 1.3), (3, 3, 1), strict=True)
    expected = sum(weight * (one - other) ** 2 for one, other, weight in pairs)
    found = kernel_distance(first, second)
    assert (found.subsets, found.subset_size) == (40, 500)
    assert found.value == pytest.approx(expected, abs=4 * found.error)
    assert found.error < 0.1 * expected


def test_the_kernel_distance_is_unbiased_and_its_error_is_the_spread_of_repetitions():
    found = [kernel_distance(normal(200, name=f"a{i}"), normal(220, name=f"b{i}")) for i in range(80)]
    values, errors = (torch.tensor([getattr(one, name) for one in found]) for name in ("value", "error"))
    assert abs(float(values.mean())) < 4 * float(values.std()) / 80**0.5
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(values.std()), rel=0.35)


def test_the_kernel_distance_depends_on_the_seed_alone():
    first, second = normal(100), normal(100, name="second")
    assert kernel_distance(first, second, seed=3) == kernel_distance(first, second, seed=3)
    assert kernel_distance(first, second, seed=3) != kernel_distance(first, second, seed=4)


@pytest.mark.parametrize("far", [10.0, 1e4])
def test_disjoint_sets_do_not_cover_each_other(far):
    assert precision_recall(normal(300), normal(300, name="second", shift=far)) == (0.0, 0.0)


@pytest.mark.parametrize("origin", [0.0, 1e3])
def test_of_nested_sets_the_inner_is_precise_and_misses_what_is_outside(origin):
    inner, outer = normal(600, 2, scale=0.05, shift=origin), normal(600, 2, name="second", shift=origin)
    precision, recall = precision_recall(inner, outer)
    assert precision == 1.0
    assert recall < 0.05
    assert precision_recall(outer, inner) == (recall, precision)


def test_a_shift_moves_every_figure():
    reference = normal(500, name="second")
    near, far = (compare(normal(500, shift=shift), reference) for shift in (0.2, 1.0))
    assert near.frechet.value < far.frechet.value
    assert near.kernel.value < far.kernel.value
    assert near.precision.low > far.precision.high
    assert near.as_dict()["frechet"]["value"] == near.frechet.value
    assert (far.n, far.n_reference, far.as_dict()["few_samples"]) == (500, 500, False)


def test_too_few_samples_are_refused():
    with pytest.raises(TooFewSamplesError, match="3 neighbours need 4 samples, got 3 and 50"):
        precision_recall(normal(3), normal(50))
    with pytest.raises(TooFewSamplesError, match="at least 20 samples"):
        kernel_distance(normal(19), normal(50))
    with pytest.raises(TooFewSamplesError, match="at least 2 samples, got 1"):
        frechet_distance(statistics(normal(1)), statistics(normal(50)))
    with pytest.raises(TooFewSamplesError, match=f"need {LEAST_SAMPLES} samples of each set, got 50 and 39"):
        compare(normal(50), normal(LEAST_SAMPLES - 1))
    compare(normal(LEAST_SAMPLES), normal(LEAST_SAMPLES, name="second"))


@pytest.mark.parametrize(
    "bad", [torch.full((30, 4), float("nan")), torch.full((30, 4), float("inf")), torch.zeros(30), torch.zeros(30, 0)]
)
def test_bad_features_are_refused(bad):
    for refuse in (lambda: statistics(bad), lambda: kernel_distance(bad, normal(50)), lambda: compare(normal(50), bad)):
        with pytest.raises(DataError):
            refuse()


def test_sets_of_other_features_are_refused():
    for refuse in (
        lambda: compare(normal(50, 3), normal(50, 4)),
        lambda: statistics(normal(50, 3), normal(50, 4)),
        lambda: frechet_distance(statistics(normal(50, 3)), statistics(normal(50, 4))),
    ):
        with pytest.raises(DataError, match=r"same features|earlier ones"):
            refuse()


def test_features_come_batch_by_batch_of_images_as_a_viewer_sees_them():
    seen = []

    def network(images):
        seen.append(images)
        return images.mean(dim=(2, 3)).double()

    batches = torch.linspace(-1, 2, 7 * 3 * 4).reshape(7, 3, 2, 2).split(3)
    rows = list(image_features(network, batches))
    assert [len(part) for part in rows] == [3, 3, 1]
    assert all(part.dtype == torch.float32 for part in rows)
    assert 0 <= min(float(part.min()) for part in seen) <= max(float(part.max()) for part in seen) <= 1
    with pytest.raises(DataError, match="one vector per image"):
        next(image_features(lambda images: images, batches))


class Memory(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, of those made within it, and keeps the most as `peak`."""

    def __init__(self):
        super().__init__()
        self.peak, self.alive = 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    weakref.finalize(storage, self.alive.pop, storage._cdata)
                self.alive[storage._cdata] = storage.nbytes()
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def test_distances_are_held_block_by_block(monkeypatch):
    """All distances of 2,000 samples take 16 MB, and finding neighbours takes more."""
    assert DISTANCES * 4 == 4 * 2**20
    rows, found, peaks = (normal(2000), normal(2000, name="second")), {}, {}
    for distances in (2**16, 2**22):
        monkeypatch.setattr("promptgen.metrics.precision_recall.DISTANCES", distances)
        with Memory() as memory:
            found[distances] = precision_recall(*rows)
        peaks[distances] = memory.peak
    assert found[2**16] == found[2**22]
    assert peaks[2**22] > 16e6
    assert peaks[2**16] < 2e6
