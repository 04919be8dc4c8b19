"""What a bucket answers when its store fails: one of our errors, one sentence, no secret, within bounded time."""

import errno
import inspect
import os
from pathlib import Path

import obstore
import pytest
from obstore import exceptions

from api.bucket import Bucket, open_bucket
from api.errors import AlreadyExists, BucketError, BucketUnavailable, EtagMismatch, KeyMissing, OutOfSpace
from tests.api.s3_servers import ACCESS_KEY, SECRET, bucket_at, free_ports, silent_server

FOREIGN: dict[str, type[BucketError]] = {  # by name of obstore's class: what it becomes
    "BaseError": BucketError,
    "GenericError": BucketUnavailable,
    "NotFoundError": BucketError,  # never raised: obstore raises FileNotFoundError in its stead
    "InvalidPathError": BucketError,
    "JoinError": BucketUnavailable,
    "NotSupportedError": BucketError,
    "AlreadyExistsError": AlreadyExists,
    "PreconditionError": EtagMismatch,
    "NotModifiedError": BucketError,
    "PermissionDeniedError": BucketError,
    "UnauthenticatedError": BucketError,
    "UnknownConfigurationKeyError": BucketError,
}
BUILT_IN: list[tuple[Exception, type[BucketError]]] = [
    (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), KeyMissing),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), BucketError),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutOfSpace),
    (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), OutOfSpace),
    (OSError(errno.EIO, os.strerror(errno.EIO)), BucketUnavailable),
    (TimeoutError("timed out"), BucketUnavailable),
    (exceptions.GenericError("Generic LocalFileSystem error: No space left on device (os error 28)"), OutOfSpace),
    (exceptions.GenericError("Generic LocalFileSystem error: Disk quota exceeded (os error 122)"), OutOfSpace),
    (ValueError("Could not parse path"), BucketError),
    (NotImplementedError("not for this store"), BucketError),
]


def classes() -> list[type[Exception]]:
    return [one for _, one in inspect.getmembers(exceptions, inspect.isclass)]


def test_each_of_obstores_exceptions_has_a_row() -> None:
    assert {one.__name__ for one in classes()} == set(FOREIGN)


@pytest.mark.parametrize(("error", "expected"), [*((one("it failed"), FOREIGN[one.__name__]) for one in classes()), *BUILT_IN], ids=repr)
def test_no_foreign_exception_leaks(error: Exception, expected: type[BucketError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bucket = open_bucket("memory://")

    def fail(*arguments: object, **named: object) -> None:
        raise error

    for name in ("get", "put", "head", "delete", "list"):
        monkeypatch.setattr(obstore, name, fail)
    (tmp_path / "file").touch()
    for use in (
        lambda: bucket.get("k"),
        lambda: bucket.put("k", b""),
        lambda: bucket.create("k", b""),
        lambda: list(bucket.list("")),
        lambda: bucket.upload("k", tmp_path / "file"),
        lambda: bucket.download("k", tmp_path / "copy"),
    ):
        with pytest.raises(BucketError) as caught:
            use()
        assert type(caught.value) is expected
        assert caught.value.__cause__ is error
        assert caught.value.message.endswith(".")
        assert "\n" not in caught.value.message
    with pytest.raises(EtagMismatch if expected in (KeyMissing, AlreadyExists) else expected):
        bucket.replace("k", b"", "1")
    assert not (tmp_path / "copy").exists()


def test_a_key_that_cannot_be_is_an_error_of_ours(bucket: Bucket) -> None:
    for key in ("../outside", "a//b", "a\0b", "/../x"):
        with pytest.raises(BucketError, match="cannot do that"):
            bucket.put(key, b"")


def test_a_server_that_is_not_there_is_unavailable() -> None:
    [port] = free_ports(1)
    bucket = bucket_at(port, "nobody")
    for use in (lambda: bucket.get("k"), lambda: bucket.create("k", b""), lambda: list(bucket.list("x/")), bucket.probe):
        with pytest.raises(BucketUnavailable, match="did not answer") as caught:
            use()
        assert caught.value.retryable
        assert SECRET not in str(caught.value)
        assert ACCESS_KEY not in str(caught.value)


def test_a_server_that_says_nothing_is_unavailable() -> None:
    with silent_server() as port:
        patience = {"client_options": {"allow_http": True, "timeout": "200ms"}, "retry_config": {"max_retries": 1}}
        with pytest.raises(BucketUnavailable, match="did not answer"):
            bucket_at(port, "nobody", **patience).get("k")


def test_patience_is_bounded_unless_it_is_asked_for() -> None:
    """Without options of its own a bucket gives up within a minute; obstore's default is three."""
    store = bucket_at(1, "nobody")._store
    assert store.retry_config is not None  # type: ignore[union-attr]  # an S3Store
    default = open_bucket("s3://nobody", {"region": "x"})._store.retry_config  # type: ignore[union-attr]  # as above
    assert default is not None
    assert default["retry_timeout"].total_seconds() <= 30
    assert default["max_retries"] <= 5


def test_a_server_that_refuses_the_credentials_says_so_without_them(s3_port: int) -> None:
    bucket = bucket_at(s3_port, "tests", secret_access_key="wrong-" + SECRET)
    with pytest.raises(BucketError, match="refuses access to k; check its credentials") as caught:
        bucket.get("k")
    assert not caught.value.retryable
    assert SECRET not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    bucket = open_bucket((tmp_path / "bucket").as_uri())
    (tmp_path / "bucket").chmod(0o500)
    with pytest.raises(BucketError, match=r"Permission denied|refuses access"):
        bucket.put("k", b"")
    (tmp_path / "bucket").chmod(0o700)


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "bucket").touch()
    with pytest.raises(BucketError, match="File exists"):
        open_bucket((tmp_path / "bucket").as_uri())


def test_a_setting_that_is_none_is_told() -> None:
    with pytest.raises(BucketError, match="'nonsense' is not valid") as caught:
        open_bucket("s3://bucket", {"nonsense": "1"})
    assert not caught.value.retryable
