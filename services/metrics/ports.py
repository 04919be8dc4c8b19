"""A port whose operations are measured: the same object to whoever uses it."""

import time
from collections.abc import Callable, Generator, Mapping
from types import GeneratorType
from typing import Any, TypeVar, cast

from prometheus_client import Counter, Histogram

from api.errors import AlreadyExists, BadRequest, Conflict, EtagMismatch, KeyMissing, NotFound, SolfaError, StaleFence, StaleVersion

T = TypeVar("T")
# Method to the operation's name; of a part that is a port itself, its own.
BUCKET_OPERATIONS = {"find": "get"} | {
    name: name for name in ("get", "exists", "put", "create", "replace", "list", "delete", "delete_prefix", "upload", "download")
}
STORE_OPERATIONS: Mapping[str, str | Mapping[str, str]] = {
    "tokens": {"add": "add_token", "find": "find_token", "all": "list_tokens", "revoke": "revoke_token", "used": "mark_token_used"},
    "audit": {"page": "read_audit"},
} | {
    name: name
    for name in (
        *("create", "repeated", "get", "has_project", "page", "live", "versions", "replace", "delete", "find_result", "adopters", "events"),
        *("acquire_lease", "release_lease", "counts", "ping"),
    )
}
# What is an answer, and no failure.
ANSWERS = (AlreadyExists, BadRequest, Conflict, EtagMismatch, KeyMissing, NotFound, StaleFence, StaleVersion)


def timed(port: T, operations: Mapping[str, str | Mapping[str, str]], seconds: Histogram, errors: Counter) -> T:
    """`port` with `operations` measured; everything else of it as it is."""
    return cast(T, _Timed(port, operations, seconds, errors))


class _Timed:
    def __init__(self, port: object, operations: Mapping[str, str | Mapping[str, str]], seconds: Histogram, errors: Counter) -> None:
        self._port, self._operations, self._seconds, self._errors = port, operations, seconds, errors

    def within(self, *arguments: Any) -> "_Timed":
        """A store narrowed to a project is measured as the whole is."""
        return _Timed(cast(Any, self._port).within(*arguments), self._operations, self._seconds, self._errors)

    def __getattr__(self, name: str) -> Any:
        found, operation = getattr(self._port, name), self._operations.get(name)
        if operation is None:
            return found
        if isinstance(operation, str):
            return self._measured(found, operation)
        return timed(found, operation, self._seconds, self._errors)

    def _measured(self, call: Callable[..., Any], operation: str) -> Callable[..., Any]:
        def measured(*arguments: Any, **options: Any) -> Any:
            answer = self._timing(operation, lambda: call(*arguments, **options))
            return self._each(operation, answer) if isinstance(answer, GeneratorType) else answer

        return measured

    def _each(self, operation: str, answers: Generator[Any, None, None]) -> Generator[Any, None, None]:
        """A listing, whose work is done as it is read."""
        end = object()
        while (one := self._timing(operation, lambda: next(answers, end))) is not end:
            yield one

    def _timing(self, operation: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            return call()
        except ANSWERS:
            raise
        except SolfaError as error:
            self._errors.labels(operation, error.code).inc()
            raise
        finally:
            self._seconds.labels(operation).observe(time.perf_counter() - began)
