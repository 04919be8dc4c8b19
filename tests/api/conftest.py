"""Buckets of every kind."""

from tests.api.buckets import bucket, s3_port

__all__ = ["bucket", "s3_port"]
