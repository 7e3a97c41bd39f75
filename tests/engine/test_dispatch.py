"""How shards are handed out, with workers that are objects of this process."""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass, field

import pytest

from promptgen.engine.base import in_order
from promptgen.engine.dispatch import CrewLostError, Dispatcher
from promptgen.engine.worker import Bench
from promptgen.errors import EngineError
from tests.engine.recipes import Squares

NUMBERS = list(range(7))
EXPECTED = [number**2 for number in NUMBERS]


class Worker:
    def __init__(self, bench):
        self.bench, self.answers, self.asked, self.stopped = bench, [], [], False

    def send(self, kind, payload):
        self.asked.append(kind)
        self.answers.append(self.bench.answer(kind, payload))

    def receive(self):
        return self.answers.pop()

    def stop(self):
        self.stopped = True


@dataclass
class Crew:
    """Hires workers that answer at once, the last hired first.

    Attributes:
        losses: calls of `wait`, counted from 1, at which everything is lost.
        strangers: numbers of the workers, counted from 0, that have another version of the code.
    """

    losses: tuple[int, ...] = ()
    strangers: tuple[int, ...] = ()
    back: bool = True
    hired: list[Worker] = field(default_factory=list)
    waits: int = 0

    def hire(self):
        worker = Worker(Stranger() if len(self.hired) in self.strangers else Bench())
        self.hired.append(worker)
        return worker

    def wait(self, workers, seconds):
        self.waits += 1
        if self.waits in self.losses:
            raise CrewLostError("the head is gone")
        return list(reversed(workers))

    def recover(self):
        if not self.back:
            raise EngineError("the head did not come back")

    def close(self):
        pass


class Stranger:
    def answer(self, kind, payload):
        return "refused", pickle.dumps(EngineError("it has another version of promptgen than the driver"))


def run(crew, size=2, numbers=NUMBERS):
    return list(in_order(Dispatcher(size, lambda: crew, threads=1).map(Squares(), numbers)))


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_every_shard_is_made_once(size):
    crew = Crew()
    assert run(crew, size) == EXPECTED
    assert sum(worker.asked.count("shard") for worker in crew.hired) == len(NUMBERS)
    assert len(crew.hired) == min(size, len(NUMBERS))


def test_results_come_as_soon_as_they_are_there():
    results = Dispatcher(2, Crew, threads=1).map(Squares(), NUMBERS)
    assert next(results) in enumerate(EXPECTED)


@pytest.mark.parametrize("losses", [(1,), (3,), (2, 5)])
def test_work_goes_on_when_everything_was_lost(losses, caplog):
    with caplog.at_level(logging.WARNING):
        assert run(Crew(losses)) == EXPECTED
    assert [line for line in caplog.messages if "the head is gone" in line] == caplog.messages
    assert len(caplog.messages) == len(losses)


def test_work_ends_when_what_was_lost_does_not_come_back():
    with pytest.raises(EngineError, match="did not come back"):
        run(Crew((2,), back=False))


def test_a_worker_of_another_version_makes_nothing(caplog):
    crew = Crew(strangers=(0,))
    with caplog.at_level(logging.WARNING):
        assert run(crew) == EXPECTED
    assert crew.hired[0].asked == ["open"]
    assert [line for line in caplog.messages if "another version of promptgen" in line] == caplog.messages
    assert len(caplog.messages) == 1


def test_work_ends_when_all_workers_are_refused():
    with pytest.raises(EngineError, match="another version of promptgen"):
        run(Crew(strangers=(0, 1)))


def test_closing_ends_the_workers_and_others_follow():
    crew = Crew()
    engine = Dispatcher(2, lambda: crew, threads=1)
    list(engine.map(Squares(), NUMBERS))
    engine.close()
    assert all(worker.stopped for worker in crew.hired)
    assert dict(engine.map(Squares(), NUMBERS)) == dict(enumerate(EXPECTED))
    assert len(crew.hired) == 4
