"""Values in memory, forgotten when those used since have too many bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The values used last, of ``most`` bytes together, and the newest whatever its size."""

    def __init__(self, most: int = 32_000_000) -> None:
        self._lock, self._most, self._values = Lock(), most, OrderedDict[Hashable, tuple[Value, int]]()

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of ``size`` bytes."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value, size
            while len(self._values) > 1 and sum(size for _, size in self._values.values()) > self._most:
                self._values.popitem(last=False)

    def get(self, key: Hashable) -> Value | None:
        """The value of a key; None where it was forgotten or never kept."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]
