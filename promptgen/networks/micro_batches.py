"""Sizes of micro-batches: a given number of images or, on a GPU, as many as fit into its memory.

There, the work itself is the probe. It starts with one image, measures the peak of memory, and doubles the number as
long as the memory that is left will do. A micro-batch that does not fit is halved and done again, wherever it runs.
What is computed does not depend on the number, except for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar

from pydantic import Field

if TYPE_CHECKING:
    import torch

R = TypeVar("R")

MicroBatch = Annotated[int, Field(ge=1)] | Literal["auto"]
"""Images at a time in params.yaml: a number, or as many as fit."""

CPU_BATCH = 16
"""Images at a time where memory is not probed."""

SPARE = 0.2
"""Part of the free memory that is left to others, and to what a larger batch takes beyond its share."""


def given(size: MicroBatch | None) -> int | None:
    """Return a number of params.yaml; None for "auto"."""
    return None if size == "auto" else size


class Memory(Protocol):
    """Memory of a device."""

    def watch(self) -> None:
        """Begin to watch the peak."""
        ...

    def taken(self) -> int:
        """Return the bytes, at the peak, beyond those that were taken when watching began."""
        ...

    def free(self) -> int:
        """Return the bytes that are free now."""
        ...

    def release(self) -> None:
        """Give back what is kept for later use."""
        ...


class CudaMemory:
    """Memory of a GPU as torch allocates it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.before = device, 0

    def watch(self) -> None:
        """Begin to watch the peak."""
        import torch

        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)

    def taken(self) -> int:
        """Return the bytes, at the peak, beyond those that were taken when watching began."""
        import torch

        return torch.cuda.max_memory_allocated(self.device) - self.before

    def free(self) -> int:
        """Return the bytes that are free now, those that torch keeps for later use included."""
        import torch

        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)

    def release(self) -> None:
        """Give back what is kept for later use."""
        import torch

        torch.cuda.empty_cache()


def memory_of(device: torch.device) -> Memory | None:
    """Return the memory of a device; None if it is not probed."""
    return CudaMemory(device) if device.type == "cuda" else None


@dataclass
class MicroBatches:
    """Cuts batches, and remembers what fits.

    Attributes:
        size: images at a time, which stays as it is; None for as many as fit.
        memory: what they have to fit into; None for memory that is not probed.
        unprobed: images at a time there, as long as they fit.

    Example:
        >>> MicroBatches(size=2).over(5, lambda part: (part.start, part.stop))
        [(0, 2), (2, 4), (4, 5)]
    """

    size: int | None = None
    memory: Memory | None = None
    unprobed: int = CPU_BATCH
    _sizes: dict[str, int] = field(default_factory=dict)
    _limits: dict[str, int] = field(default_factory=dict)

    def over(
        self, n: int, work: Callable[[slice], R], kind: str = "", undo: Callable[[], Callable[[], None]] | None = None
    ) -> list[R]:
        """Return the results of some work on all parts of a batch.

        Args:
            n: images of the batch.
            work: does a part of the batch; it may be called again for a part that did not fit.
            kind: name of the work; each kind has a number of images of its own.
            undo: called before each part; returns what takes back the changes of a part that did not fit.

        Raises:
            torch.OutOfMemoryError: a single image, or the given number of them, does not fit.
        """
        import torch

        results: list[R] = []
        start = 0
        while start < n:
            part = slice(start, min(start + self._next(kind), n))
            count, restore = part.stop - start, undo() if undo else None
            if self.memory and not self.size:
                self.memory.watch()
            try:
                results.append(work(part))
            except torch.OutOfMemoryError:
                if self.size or count == 1:
                    raise
                self._sizes[kind] = self._limits[kind] = count // 2
            else:
                start = part.stop
                self._grow(kind, count)
                continue
            if self.memory:  # after the except clause, which holds the tensors of the part that did not fit
                self.memory.release()
            if restore:
                restore()
        return results

    def _next(self, kind: str) -> int:
        return self.size or self._sizes.get(kind) or (1 if self.memory else self.unprobed)

    def _grow(self, kind: str, count: int) -> None:
        """Double the number of images, unless a part of them shows that the next ones would not fit."""
        if self.memory is None or self.size or count < self._next(kind):
            return
        per_image = max(self.memory.taken() / count, 1.0)
        fitting = int((1 - SPARE) * self.memory.free() / per_image)
        self._sizes[kind] = max(1, min(2 * count, fitting, self._limits.get(kind, 2 * count)))


def largest(most: int, run: Callable[[int], object], memory: Memory | None) -> int:
    """Return how many images, at most `most`, some work can process at a time.

    Args:
        most: the largest number that is of use.
        run: does the work for a number of images.
        memory: what they have to fit into; None for memory that is not probed.

    Raises:
        torch.OutOfMemoryError: a single image does not fit.

    Example:
        >>> largest(8, lambda count: None, memory=None)
        8
    """
    batches = MicroBatches(memory=memory, unprobed=most)
    batches.over(2 * most, lambda part: run(part.stop - part.start))
    return min(most, batches._next(""))
