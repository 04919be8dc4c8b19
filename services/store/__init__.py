"""The store: the only module that speaks SQL."""

from services.store.port import Event, ExperimentStore, Idempotent, Lease, NewEvent, Page

__all__ = ["Event", "ExperimentStore", "Idempotent", "Lease", "NewEvent", "Page"]
