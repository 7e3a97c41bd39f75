"""The store of evaluations: what is in it is not made again, and what comes out does not depend on what was in it."""

from __future__ import annotations

import logging
import weakref

import pytest
import torch

from promptgen.errors import ConfigError, DataError, NonFiniteEnergyError, StorageError
from promptgen.evaluations.config import SHARD_SIZE, shared_records
from promptgen.evaluations.evaluator import Slope
from promptgen.evaluations.store import EvaluationStore, Spending
from tests.evaluations.small import Coordinates, Interrupted, normal
from tests.faults import full_disk

BATCH = 64
WHO = {"generator": "coordinates", "weights": "1"}
N = 2 * SHARD_SIZE + 10


def square(sample):
    return sample.image.flatten(1).square()


def total(sample):
    return sample.image.flatten(1).sum(dim=1, keepdim=True)


def noisy(sample):
    return total(sample) + torch.rand(len(sample.latent), 1, generator=sample.rng)


def store_in(folder, generator=None, outputs=None, **options):
    return EvaluationStore(
        generator or Coordinates(), outputs or {"square@1": square}, folder=folder, identity=WHO, batch=BATCH, **options
    )


def slope(n, name="weighted", features=lambda outputs: outputs["square@1"]):
    return Slope(name, features, torch.tensor([[1.0, 2.0, -1.0]]).expand(n, 3))


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_records_are_what_the_outputs_say_of_the_images(tmp_path):
    latent = normal(N)
    evaluations = store_in(tmp_path).evaluate(latent)
    assert torch.equal(evaluations.latent, latent)
    assert torch.equal(evaluations.outputs["square@1"], latent[:, :3].square())
    assert (len(evaluations), evaluations.gradient, evaluations.slope_name) == (N, None, None)
    assert len(evaluations.addresses) == len(shards(tmp_path)) == 3


def test_an_equal_request_makes_no_image_whoever_asks(tmp_path):
    latent = normal(N)
    first = store_in(tmp_path, user="one")
    made = first.evaluate(latent)
    again = store_in(tmp_path, user="one")
    other = store_in(tmp_path, user="two")
    for store in (again, other):
        kept = store.evaluate(latent)
        assert store.generator.images == 0
        assert kept.addresses == made.addresses
        assert torch.equal(kept.outputs["square@1"], made.outputs["square@1"])
    assert first.spending == Spending(forward=N)
    assert again.spending == Spending(forward=N, cached=N)
    assert other.spending == Spending(shared=N, cached=N)
    assert (first.spending.units, other.spending.units, other.spending.asked) == (N, 0, N)


def test_a_longer_request_makes_the_rest_alone(tmp_path):
    latent = normal(3 * SHARD_SIZE)
    store_in(tmp_path).evaluate(latent[:SHARD_SIZE])
    store = store_in(tmp_path)
    store.evaluate(latent)
    assert store.generator.images == 2 * SHARD_SIZE
    assert store.spending.cached == SHARD_SIZE


@pytest.mark.parametrize("kept", [10, 256, 300, 512, 600])
@pytest.mark.parametrize("n", [10, 256, 300, 512, 600])
def test_what_two_requests_of_a_stream_share_is_known_beforehand(tmp_path, n, kept):
    store_in(tmp_path).evaluate(normal(600)[:kept])
    store = store_in(tmp_path)
    store.evaluate(normal(600)[:n])
    assert store.spending.cached == shared_records(n, kept)


@pytest.mark.parametrize("change", ["latent", "context", "slope"])
def test_another_request_is_another_shard(tmp_path, change):
    latent, context = normal(8), normal(8, 2, seed=1)
    store = store_in(tmp_path)
    store.evaluate(latent, context, slope=slope(8))
    if change == "latent":
        latent = latent + 1e-6
    if change == "context":
        context = context + 1e-6
    store.evaluate(latent, context, slope=slope(8, "other" if change == "slope" else "weighted"))
    assert store.generator.images == 16
    assert store.spending.cached == 0


@pytest.mark.parametrize("fatal", [1, 6, 9])
def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path, fatal):
    """Four calls make a shard: one ends before any is written, one in the middle of a shard, one at its beginning."""
    latent = normal(N)
    whole = store_in(tmp_path / "whole")
    expected = whole.evaluate(latent, slope=slope(N))
    with pytest.raises(Interrupted):
        store_in(tmp_path / "killed", Coordinates(fatal_call=fatal)).evaluate(latent, slope=slope(N))
    written = (fatal - 1) // 4
    assert len(shards(tmp_path / "killed")) == written
    rest = store_in(tmp_path / "killed")
    got = rest.evaluate(latent, slope=slope(N))
    assert rest.generator.images == N - written * SHARD_SIZE
    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")
    assert torch.equal(got.gradient, expected.gradient)
    assert rest.spending.units == whole.spending.units == 3 * N


@pytest.mark.parametrize("content", [b"", b"not a shard", None], ids=["empty", "foreign", "cut off"])
def test_a_damaged_shard_is_made_again(tmp_path, caplog, content):
    latent = normal(8)
    store_in(tmp_path).evaluate(latent)
    ((name, whole),) = shards(tmp_path).items()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    store = store_in(tmp_path)
    with caplog.at_level(logging.WARNING, "promptgen"):
        store.evaluate(latent)
    assert name in caplog.text
    assert store.generator.images == 8
    assert shards(tmp_path) == {name: whole}


def test_the_folder_of_another_generator_is_refused_by_name(tmp_path):
    store_in(tmp_path).evaluate(normal(8))
    kept = shards(tmp_path)
    with pytest.raises(DataError, match="weights") as error:
        EvaluationStore(Coordinates(), {"square@1": square}, folder=tmp_path, identity=WHO | {"weights": "2"})
    assert "generator)" not in str(error.value)
    assert shards(tmp_path) == kept


def test_an_output_is_added_to_a_shard_that_lacks_it(tmp_path):
    latent = normal(N)
    store_in(tmp_path, user="one").evaluate(latent, slope=slope(N))
    outputs = {"square@1": square, "total@1": total}
    adding = store_in(tmp_path, outputs=outputs, user="two")
    evaluations = adding.evaluate(latent, slope=slope(N))
    assert adding.generator.images == N
    assert torch.equal(evaluations.outputs["total@1"], latent[:, :3].sum(dim=1, keepdim=True))
    assert evaluations.gradient is not None
    assert evaluations.slope_name == "weighted"
    again = store_in(tmp_path, outputs={"total@1": total}, user="two")
    again.evaluate(latent, slope=slope(N))
    assert again.generator.images == 0
    for store in (adding, again):  # it made the images anew, and differentiated none
        assert (store.spending.forward, store.spending.backward) == (N, 0)
    first = store_in(tmp_path, user="one")
    first.evaluate(latent, slope=slope(N))
    assert (first.spending.forward, first.spending.backward, first.spending.shared) == (N, N, 0)


def test_a_random_output_is_the_same_whenever_it_is_read(tmp_path):
    latent, outputs = normal(100), {"square@1": square, "first@1": noisy, "second@1": noisy}
    together = store_in(tmp_path / "together", outputs=outputs).evaluate(latent)
    store_in(tmp_path / "apart", outputs={"second@1": noisy}).evaluate(latent)
    apart = store_in(tmp_path / "apart", outputs=outputs).evaluate(latent)
    for name in outputs:
        assert torch.equal(together.outputs[name], apart.outputs[name])
    assert not torch.equal(together.outputs["first@1"], together.outputs["second@1"])
    other = store_in(None, outputs=outputs, seed=1).evaluate(latent)
    assert not torch.equal(together.outputs["first@1"], other.outputs["first@1"])


def test_the_gradient_is_that_of_the_features(tmp_path):
    latent = normal(10)
    evaluations = store_in(tmp_path).evaluate(latent, slope=slope(10))
    point = latent.clone().requires_grad_()
    value = (point[:, :3].square() * torch.tensor([1.0, 2.0, -1.0])).sum()
    (gradient,) = torch.autograd.grad(value, point)
    torch.testing.assert_close(evaluations.gradient, gradient)
    assert torch.equal(evaluations.direction, slope(10).direction)


def test_gradients_and_conditions_come_back_from_the_disk(tmp_path):
    latent, context = normal(N), normal(N, 2, seed=1)
    made = store_in(tmp_path).evaluate(latent, context, slope=slope(N))
    store = store_in(tmp_path)
    loaded = store.load(made.addresses, latent)
    assert store.generator.images == 0
    assert [part.slope_name for part in loaded] == ["weighted"] * 3
    for name in ("latent", "context", "direction", "gradient"):
        assert torch.equal(torch.cat([getattr(part, name) for part in loaded]), getattr(made, name))


def test_what_is_loaded_gets_the_outputs_that_it_lacks(tmp_path):
    latent = normal(8)
    made = store_in(tmp_path).evaluate(latent)
    store = store_in(tmp_path, outputs={"total@1": total})
    (loaded,) = store.load(made.addresses, latent)
    assert torch.equal(loaded.outputs["total@1"], latent[:, :3].sum(dim=1, keepdim=True))
    assert store.generator.images == 8


def test_an_address_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="abcdef012345") as error:
        store_in(tmp_path).load(["abcdef012345" + "0" * 52], normal(1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path, bad):
    outputs = {"broken@1": lambda sample: torch.full((len(sample.latent), 1), bad)}
    with pytest.raises(NonFiniteEnergyError, match="broken@1"):
        store_in(tmp_path, outputs=outputs).evaluate(normal(8))
    assert shards(tmp_path) == {}


def test_a_gradient_that_is_not_finite_is_refused(tmp_path):
    root = Slope("root", lambda outputs: (0 * outputs["square@1"]).sqrt(), torch.ones(8, 3))
    with pytest.raises(NonFiniteEnergyError, match="root"):
        store_in(tmp_path).evaluate(normal(8), slope=root)
    assert shards(tmp_path) == {}


def test_a_full_disk_is_an_error_of_storage_and_leaves_no_part(tmp_path):
    store = store_in(tmp_path)
    with full_disk(tmp_path), pytest.raises(StorageError):
        store.evaluate(normal(8))
    assert shards(tmp_path) == {}


def test_a_store_without_a_folder_keeps_nothing():
    store = store_in(None)
    for _ in range(2):
        store.evaluate(normal(8))
    assert store.generator.images == 16


def test_timing_leaves_no_trace(tmp_path):
    store = store_in(tmp_path)
    store.measure(normal(8))
    assert store.generator.images == 8
    assert store.spending == Spending()
    assert shards(tmp_path) == {}


def test_images_are_made_in_batches_and_progress_is_told(tmp_path):
    sizes, done = [], []

    def watched(sample):
        sizes.append(len(sample.latent))
        return square(sample)

    store_in(tmp_path, outputs={"square@1": watched}).evaluate(normal(N), progress=done.append)
    assert max(sizes) == BATCH
    assert done == [SHARD_SIZE, 2 * SHARD_SIZE, N]


def test_memory_does_not_hold_earlier_images():
    class Large(Coordinates):
        def forward(self, latent, *, noise=None):
            image = latent[:, :1, None, None].expand(-1, 3, 64, 64).clone()
            images.append(weakref.ref(image))
            return image

    def brightness(sample):
        alive.append(sum(image() is not None for image in images))
        return sample.image.mean(dim=(1, 2, 3))[:, None]

    images, alive = [], []
    features = Slope("brightness", lambda outputs: outputs["brightness@1"], torch.ones(SHARD_SIZE, 1))
    EvaluationStore(Large(), {"brightness@1": brightness}, batch=16).evaluate(normal(SHARD_SIZE), slope=features)
    assert len(alive) == SHARD_SIZE // 16
    assert max(alive) <= 2


@pytest.mark.parametrize(
    "blind", [lambda sample: square(sample).detach(), lambda sample: torch.ones(3).requires_grad_()]
)
def test_an_output_without_a_gradient_is_refused_where_one_is_asked_for(blind):
    store = store_in(None, outputs={"square@1": blind})
    with pytest.raises(ConfigError, match="gradient: none"):
        store.evaluate(normal(8), slope=slope(8))
