"""Hands shards to workers and replaces the workers that fail, whatever the workers are.

- A worker that ends or misses the deadline is replaced, and its shard is made again.
- A worker that cannot make the function of a recipe, such as one with other code or weights, is refused.
- An error of the project's own ends the work at once, as it does in one process. Any other error may be the worker's
  fault: the shard is tried again, and the error ends the work when it has been raised `ATTEMPTS` times.
"""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from promptgen.engine.base import R, Recipe, S
from promptgen.engine.worker import Opening, full_identity
from promptgen.errors import EngineError, PromptGenError

ATTEMPTS = 3
"""Most times that a shard is tried, and most workers in a row that may end before they are ready."""

READY_SECONDS = 3600.0
"""Seconds that a worker has to become ready: to find a place in a cluster, and to fetch and load models."""

POLL_SECONDS = 1.0

logger = logging.getLogger("promptgen")


class WorkerLostError(Exception):
    """A worker has ended; the message states how."""


class CrewLostError(Exception):
    """The host of all workers is gone; the message states how."""


class Worker(Protocol):
    """A process that answers messages with a `promptgen.engine.worker.Bench`."""

    def send(self, kind: str, payload: bytes) -> None:
        """Send a message; raise WorkerLostError if the worker has ended."""
        ...

    def receive(self) -> tuple[str, bytes]:
        """Return the answer; raise WorkerLostError if the worker has ended."""
        ...

    def stop(self) -> None:
        """End the worker at once."""
        ...


class Crew(Protocol):
    """Hires workers."""

    def hire(self) -> Any:
        """Return a new worker."""
        ...

    def wait(self, workers: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return the workers that have answered or ended, after at most so many seconds."""
        ...

    def recover(self) -> None:
        """Prepare to hire again after `CrewLostError`; raise EngineError if that takes too long."""
        ...

    def close(self) -> None:
        """Close the host of the workers."""
        ...


@dataclass
class _Seat:
    """The place of a worker.

    Attributes:
        name: what the log calls the worker.
        worker: the worker; None before the first shard, and after a loss.
        opened: what it is ready for.
        refused: what it cannot be made ready for.
        task: what it is doing: becoming ready, or the shard of that position.
        deadline: when it has to be done with that, on the monotonic clock.
        losses: workers in a row that ended here before they were ready.
    """

    name: str
    worker: Worker | None = None
    opened: Opening | None = None
    refused: Opening | None = None
    task: Opening | int | None = None
    deadline: float = math.inf
    losses: int = 0

    def send(self, task: Opening | int, kind: str, payload: bytes, seconds: float) -> None:
        assert self.worker is not None
        self.task, self.deadline = task, time.monotonic() + seconds
        self.worker.send(kind, payload)

    def vacate(self) -> None:
        """End the worker."""
        worker, self.worker, self.opened, self.task = self.worker, None, None, None
        if worker is not None:
            worker.stop()


@dataclass
class Dispatcher:
    """An engine that hands shards to workers.

    Args:
        size: number of workers.
        crew: makes where they come from, when the first shard is evaluated.
        threads: CPU threads of each; None means as many as torch uses in this process.
        deadline: seconds that a worker has for a shard.
    """

    size: int
    crew: Callable[[], Any]
    threads: int | None = None
    deadline: float = 3600.0
    seats: list[_Seat] = field(default_factory=list)
    _crew: Any = None
    _opening: Opening | None = None

    def map(
        self, recipe: Recipe[S, R] | None, shards: Sequence[S], function: Callable[[S], R] | None = None
    ) -> Iterator[tuple[int, R]]:
        """Yield the position and the result of each shard, as of `promptgen.engine.base.Engine.map`."""
        if not shards:
            return
        if recipe is None:
            raise ValueError("workers need a recipe, got None")
        import torch

        opening = Opening(recipe, full_identity(recipe), self.threads or torch.get_num_threads())
        if self._opening is not None and opening == self._opening:
            opening = self._opening  # so that seats compare it by identity
        self._opening = opening
        self._crew = self._crew or self.crew()
        self.seats = self.seats or [_Seat(f"worker {number + 1}") for number in range(self.size)]
        for seat in self.seats:
            seat.refused = None
        work = _Work(self._crew, self.seats, opening, shards, self.deadline)
        try:
            while work.left:
                try:
                    work.hand_out()
                    yield from work.collect()
                except CrewLostError as loss:
                    work.start_over(str(loss))
        finally:
            for seat in self.seats:
                if isinstance(seat.task, int):
                    seat.vacate()

    def close(self) -> None:
        """End all workers; the next `map` starts new ones."""
        for seat in self.seats:
            seat.vacate()
        crew, self.seats, self._crew = self._crew, [], None
        if crew is not None:
            crew.close()


class _Work:
    """The shards of one `map`."""

    def __init__(
        self, crew: Crew, seats: Sequence[_Seat], opening: Opening, shards: Sequence[Any], deadline: float
    ) -> None:
        self.crew, self.seats, self.opening, self.shards, self.deadline = crew, seats, opening, shards, deadline
        self.queue = deque(range(len(shards)))
        self.left = len(shards)
        self.attempts: Counter[int] = Counter()

    def hand_out(self) -> None:
        """Give every free worker a message, and start workers as long as there are shards for them."""
        wanted = sum(isinstance(seat.task, int) for seat in self.seats) + len(self.queue)
        usable = [seat for seat in self.seats if seat.refused is not self.opening]
        for seat in sorted(usable, key=lambda seat: seat.opened is not self.opening)[:wanted]:
            if seat.task is None:
                self._employ(seat)

    def _employ(self, seat: _Seat) -> None:
        try:
            if seat.worker is None:
                seat.worker = self.crew.hire()
            if seat.opened is not self.opening:
                seat.opened = None
                seat.send(self.opening, "open", pickle.dumps(self.opening), READY_SECONDS)
            elif self.queue:
                number = self.queue.popleft()
                seat.send(number, "shard", pickle.dumps(self.shards[number]), self.deadline)
        except WorkerLostError as loss:
            self._lose(seat, str(loss))

    def collect(self) -> Iterator[tuple[int, Any]]:
        """Wait for workers; yield the results that have arrived."""
        busy = {id(seat.worker): seat for seat in self.seats if seat.task is not None}
        if not busy:
            return
        soonest = min(seat.deadline for seat in busy.values()) - time.monotonic()
        done = self.crew.wait([seat.worker for seat in busy.values()], max(0.0, min(POLL_SECONDS, soonest)))
        for seat in [busy[id(worker)] for worker in done]:
            assert seat.worker is not None
            try:
                kind, payload = seat.worker.receive()
            except WorkerLostError as loss:
                self._lose(seat, str(loss))
                continue
            task, seat.task = seat.task, None
            assert task is not None
            if not isinstance(task, int):
                self._note_opening(seat, task, kind, payload)
            elif kind == "failed":
                self._note_failure(seat, task, pickle.loads(payload))
            else:
                self.left -= 1
                self._employ(seat)  # it works on while the result is used
                yield task, pickle.loads(payload)
        for seat in busy.values():
            if seat.task is not None and time.monotonic() > seat.deadline:
                self._lose(seat, "did not finish in time")

    def _note_opening(self, seat: _Seat, opening: Opening, kind: str, payload: bytes) -> None:
        """Record that a worker is ready or refused; raise the error if all have refused."""
        value = pickle.loads(payload)
        if kind == "ready":
            seat.name = f"{seat.name.partition(' (')[0]} ({value})"
            seat.opened, seat.losses = opening, 0
            return
        seat.refused = opening
        if all(other.refused is self.opening for other in self.seats):
            raise value
        if opening is self.opening:
            logger.warning("%s is refused; the others continue: %s", seat.name, value)

    def _note_failure(self, seat: _Seat, number: int, error: Exception) -> None:
        """Queue a shard again after an error, or raise the error."""
        self.attempts[number] += 1
        if isinstance(error, PromptGenError) or self.attempts[number] == ATTEMPTS:
            raise error
        self.queue.append(number)
        logger.warning(
            "%s raised %s in %s, which is made again: %s", seat.name, type(error).__name__, self._called(number), error
        )

    def _lose(self, seat: _Seat, reason: str) -> None:
        """Vacate a seat whose worker has ended or hangs, and queue its shard again."""
        task = seat.task
        with contextlib.suppress(OSError):
            seat.vacate()
        if isinstance(task, int):
            self.attempts[task] += 1
            if self.attempts[task] == ATTEMPTS:
                raise EngineError(
                    f"{self._called(task)} ended {ATTEMPTS} workers, the last one ({seat.name}) {reason}: give a "
                    "worker more memory, a smaller batch or a longer deadline"
                )
            self.queue.appendleft(task)
            logger.warning("%s %s in %s: it is made again", seat.name, reason, self._called(task))
            return
        seat.losses += 1
        if seat.losses == ATTEMPTS:
            raise EngineError(
                f"{ATTEMPTS} workers in a row ended before they were ready, the last one {reason}: start fewer "
                "workers, or give each more memory"
            )
        logger.warning("%s %s before it was ready: another one is started", seat.name, reason)

    def start_over(self, reason: str) -> None:
        """Continue with new workers after all have been lost."""
        lost = [seat.task for seat in self.seats if isinstance(seat.task, int)]
        logger.warning("%s: %s of %s shards are made again", reason, len(lost), len(self.shards))
        for seat in self.seats:
            seat.worker = None  # nobody is there to end it
            seat.vacate()
        self.queue.extendleft(reversed(lost))
        self.crew.recover()

    def _called(self, number: int) -> str:
        return f"shard {number + 1} of {len(self.shards)}"
