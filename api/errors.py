"""Every failure Solfa names, as one tree, so that each gets one code, one HTTP status and one decision to retry.

SolfaError
├── SpecError                    invalid_spec            422  every problem of a spec at once
├── NotFound                     not_found               404
├── Conflict                     conflict                409
│   ├── NameTaken                name_taken              409
│   ├── IdempotencyMismatch      idempotency_mismatch    422  same key, other body
│   └── StaleVersion             stale_version           412  the record moved on (compare-and-swap lost)
├── Unauthorized                 unauthorized            401  no token, or one that is not valid
├── Forbidden                    forbidden               403  a token that may not do this, or a request from another site
├── NotReady                     not_ready               409  a result that is not there yet, and why
├── BadRequest                   bad_request             400
│   ├── UnsupportedMediaType     unsupported_media_type  415
│   ├── InvalidRequest           invalid_request         422  a body or parameter that says what cannot be
│   ├── ContentTooLarge          content_too_large       413
│   └── RequestTimeout           request_timeout         408  a body that did not come in time
├── TooManyRequests              too_many_requests       429  retryable: after Retry-After
├── QuotaExceeded                quota_exceeded          429  what a project may have at once is had
├── DataError                    bad_data                422  unreadable, empty or too small a source
├── NonFiniteLoss                non_finite_loss         500  NaN or inf while training
├── BucketError                  bucket_error            502
│   ├── BucketUnavailable        bucket_unavailable      503  retryable
│   ├── KeyMissing               key_missing             404
│   ├── AlreadyExists            already_exists          409  create-if-absent lost
│   ├── EtagMismatch             etag_mismatch           412  replace-if-unchanged lost
│   │   └── Superseded           superseded              412  a newer attempt of the stage has taken over
│   ├── OutOfSpace               out_of_space            507
│   │   └── NoRoom               no_room                 503  retryable: known before anything was written; a larger disk may be had
│   ├── Damaged                  damaged                 503  retryable: what was read back is not what was written
│   └── NoConditionalWrites      no_conditional_writes   500
├── StoreError                   store_error             500
│   ├── StoreUnavailable         store_unavailable       503  retryable: locked, restarting, unreachable
│   ├── StoreTooNew              store_too_new           500
│   └── StaleFence               stale_fence             409  a lease that another reconciler now holds
├── LaunchError                  launch_error            502
│   ├── LaunchRejected           launch_rejected         422  refused for good
│   └── ClusterUnavailable       cluster_unavailable     503  retryable
└── ServiceUnreachable           service_unreachable     503  retryable: the client could not reach the service
"""

from typing import Any, ClassVar


class SolfaError(Exception):
    """The root. `message` is one sentence that says what is wrong and what to do."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.extra = extra  # members of the problem document beside the standard ones


class SpecError(SolfaError):
    """A spec that cannot be run; `extra["problems"]` lists every `api.spec.Problem` as a mapping."""

    code, status = "invalid_spec", 422


class NotFound(SolfaError):
    code, status = "not_found", 404


class Conflict(SolfaError):
    code, status = "conflict", 409


class NameTaken(Conflict):
    code = "name_taken"


class IdempotencyMismatch(Conflict):
    code, status = "idempotency_mismatch", 422


class StaleVersion(Conflict):
    code, status = "stale_version", 412


class Unauthorized(SolfaError):
    code, status = "unauthorized", 401


class Forbidden(SolfaError):
    code, status = "forbidden", 403


class NotReady(SolfaError):
    code, status = "not_ready", 409


class BadRequest(SolfaError):
    code, status = "bad_request", 400


class UnsupportedMediaType(BadRequest):
    code, status = "unsupported_media_type", 415


class InvalidRequest(BadRequest):
    """`extra["problems"]` lists what is wrong, each with `pointer` (of the posted document) and `message`."""

    code, status = "invalid_request", 422


class ContentTooLarge(BadRequest):
    code, status = "content_too_large", 413


class RequestTimeout(BadRequest):
    code, status = "request_timeout", 408


class TooManyRequests(SolfaError):
    code, status, retryable = "too_many_requests", 429, True


class QuotaExceeded(SolfaError):
    code, status = "quota_exceeded", 429


class DataError(SolfaError):
    code, status = "bad_data", 422


class NonFiniteLoss(SolfaError):
    code = "non_finite_loss"


class BucketError(SolfaError):
    code, status = "bucket_error", 502


class BucketUnavailable(BucketError):
    code, status, retryable = "bucket_unavailable", 503, True


class KeyMissing(BucketError):
    code, status = "key_missing", 404


class AlreadyExists(BucketError):
    code, status = "already_exists", 409


class EtagMismatch(BucketError):
    code, status = "etag_mismatch", 412


class Superseded(EtagMismatch):
    code = "superseded"


class OutOfSpace(BucketError):
    code, status = "out_of_space", 507


class NoRoom(OutOfSpace):
    code, status, retryable = "no_room", 503, True


class Damaged(BucketError):
    code, status, retryable = "damaged", 503, True


class NoConditionalWrites(BucketError):
    code, status = "no_conditional_writes", 500


class StoreError(SolfaError):
    code = "store_error"


class StoreUnavailable(StoreError):
    code, status, retryable = "store_unavailable", 503, True


class StoreTooNew(StoreError):
    code = "store_too_new"


class StaleFence(StoreError):
    code, status = "stale_fence", 409


class LaunchError(SolfaError):
    code, status = "launch_error", 502


class LaunchRejected(LaunchError):
    code, status = "launch_rejected", 422


class ClusterUnavailable(LaunchError):
    code, status, retryable = "cluster_unavailable", 503, True


class ServiceUnreachable(SolfaError):
    code, status, retryable = "service_unreachable", 503, True
