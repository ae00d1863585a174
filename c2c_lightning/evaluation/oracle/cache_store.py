"""Caches of questions that are kept between two stages of an experiment."""

from c2c_lightning.analysis.oracle.enrichment import QuestionCache


class QuestionCacheStore:
    """Keeps as many caches as fit into a limit; the others are computed again.

    Args:
        limit: memory in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.num_bytes = limit, 0
        self._caches: dict[int, QuestionCache] = {}
        self._contexts: set[int] = set()

    def __len__(self) -> int:
        """Number of kept caches."""
        return len(self._caches)

    def put(self, index: int, cache: QuestionCache) -> None:
        """Keep the cache of a question unless it is too large; its context counts once."""
        is_new = id(cache.context) not in self._contexts
        needed = cache.num_bytes + (cache.context.num_bytes if is_new else 0)
        if self.num_bytes + needed <= self.limit:
            self.num_bytes += needed
            self._caches[index] = cache
            self._contexts.add(id(cache.context))

    def get(self, index: int) -> QuestionCache | None:
        """The cache of a question, None if it was not kept."""
        return self._caches.get(index)
