"""Every foreign phase to ours, totally: what a newer TorchX may say, and we have not heard of, is UNKNOWN."""

from torchx.specs import AppState

from services.launch.cluster import AppPhase

PHASES: dict[AppState, AppPhase] = {
    AppState.UNSUBMITTED: AppPhase.PENDING,
    AppState.SUBMITTED: AppPhase.PENDING,
    AppState.PENDING: AppPhase.PENDING,
    AppState.RUNNING: AppPhase.RUNNING,
    AppState.SUCCEEDED: AppPhase.SUCCEEDED,
    AppState.FAILED: AppPhase.FAILED,
    AppState.CANCELLED: AppPhase.CANCELLED,
    AppState.UNKNOWN: AppPhase.UNKNOWN,
}


def to_phase(state: AppState | None) -> AppPhase:
    """None, for TorchX, is an app that is not there."""
    return AppPhase.ABSENT if state is None else PHASES.get(state, AppPhase.UNKNOWN)
