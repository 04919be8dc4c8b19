"""From who asks to what the audit record is told of their change."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from api.experiment import Experiment
from services.access.principal import Principal
from services.store import Change

Guard = Callable[[Sequence[Experiment]], None]


def change_by(
    principal: Principal, action: str, at: datetime, details: Mapping[str, str | int] | None = None, guard: Guard | None = None
) -> Change:
    """`guard`: what the change is held to, see services.store.port."""
    return Change(action, principal.name, principal.token_id, principal.address, at, details or {}, guard)
