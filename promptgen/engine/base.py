"""The protocol of engines, which evaluate shards of work here or elsewhere, and the engine of this process.

Work is cut into shards before an engine sees it. A shard is addressed by a seed and a range, or by the sha256 of what
is asked for, so its result depends neither on who makes it nor on how many workers there are nor on their order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

S = TypeVar("S")
R = TypeVar("R")


class Recipe(ABC, Generic[S, R]):
    """Builds the function that evaluates a shard, from parsed parameters instead of networks, so it is a few kB.

    Workers receive it pickled. Equal recipes make equal functions as long as their identities are equal.
    """

    def prepare(self) -> None:
        """Fetch what is missing on this machine, such as weight files."""

    def identity(self) -> Mapping[str, str]:
        """Return the sha256 of everything on this machine that results depend on, such as code and weights, by name."""
        return {}

    @abstractmethod
    def build(self) -> Callable[[S], R]:
        """Return the function that evaluates a shard."""


class Engine(Protocol):
    """Evaluates shards."""

    def map(
        self, recipe: Recipe[S, R] | None, shards: Sequence[S], function: Callable[[S], R] | None = None
    ) -> Iterator[tuple[int, R]]:
        """Yield the position and the result of each shard, as soon as it is done and in any order.

        Args:
            recipe: makes the function that evaluates a shard; only an engine of this process can do without.
            shards: what to evaluate; workers receive them pickled.
            function: that function, if this process has built it already.

        Raises:
            EngineError: workers cannot be started, are refused, or end again and again.
            Exception: what evaluating a shard has raised.
        """
        ...

    def close(self) -> None:
        """End all workers; the next `map` starts new ones."""
        ...


class InlineEngine:
    """Evaluates shards in this process, one after another.

    Example:
        >>> list(InlineEngine().map(None, [1, 2], function=lambda shard: 10 * shard))
        [(0, 10), (1, 20)]
    """

    def map(
        self, recipe: Recipe[S, R] | None, shards: Sequence[S], function: Callable[[S], R] | None = None
    ) -> Iterator[tuple[int, R]]:
        """Yield the position and the result of each shard, in order."""
        if not shards:
            return
        if function is None:
            if recipe is None:
                raise ValueError("expected a recipe, or the function that it makes, got neither")
            function = recipe.build()
        for number, shard in enumerate(shards):
            yield number, function(shard)

    def close(self) -> None:
        """Do nothing: there are no workers."""


def in_order(results: Iterable[tuple[int, R]]) -> Iterator[R]:
    """Yield the results of an engine in the order of their shards.

    Example:
        >>> list(in_order([(1, "b"), (0, "a"), (2, "c")]))
        ['a', 'b', 'c']
    """
    early: dict[int, Any] = {}
    following = 0
    for number, result in results:
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1
