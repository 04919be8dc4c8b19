"""Every bucket key, as a function. A prefix ends in a slash."""

EXPERIMENTS, PROBES = "experiments/", "probes/"  # all that the service and its stages ever write is below these


def experiment_prefix(experiment_id: str) -> str:
    return f"{EXPERIMENTS}{experiment_id}/"


def spec(experiment_id: str) -> str:
    return f"{experiment_prefix(experiment_id)}spec.yaml"


def stage_prefix(experiment_id: str, stage: str) -> str:
    return f"{experiment_prefix(experiment_id)}stages/{stage}/"


def result(experiment_id: str, stage: str) -> str:
    """The manifest whose presence is success."""
    return f"{stage_prefix(experiment_id, stage)}result.json"


def owner(result_key: str) -> tuple[str, str]:
    """(experiment id, stage) that a result's key belongs to."""
    _, experiment_id, _, stage, _ = result_key.split("/")
    return experiment_id, stage


def latest_state(experiment_id: str, stage: str) -> str:
    """The TrainStatePointer."""
    return f"{stage_prefix(experiment_id, stage)}states/latest.json"


def state_prefix(experiment_id: str, stage: str, step: int, attempt: int) -> str:
    """One train state; the attempt in it keeps a late writer from touching a newer attempt's files."""
    return f"{stage_prefix(experiment_id, stage)}states/{step:09d}-a{attempt}/"


def history_segment(experiment_id: str, stage: str, first_step: int, last_step: int, attempt: int) -> str:
    return f"{stage_prefix(experiment_id, stage)}history/{first_step:09d}-{last_step:09d}-a{attempt}.jsonl.gz"


def output_prefix(experiment_id: str, stage: str, attempt: int) -> str:
    """What an attempt makes: prepared rows, a model; it counts only once the manifest names it."""
    return f"{stage_prefix(experiment_id, stage)}output/a{attempt}/"


def prepared_prefix(experiment_id: str, stage: str) -> str:
    """The prepared rows: the same bytes whichever attempt wrote them, so attempts share the place."""
    return f"{stage_prefix(experiment_id, stage)}data/"


def scratch_prefix(experiment_id: str, stage: str) -> str:
    """Work in progress that attempts share, such as the parts of a resumable prepare."""
    return f"{stage_prefix(experiment_id, stage)}scratch/"


def attempt_prefix(experiment_id: str, stage: str, attempt: int) -> str:
    return f"{stage_prefix(experiment_id, stage)}attempts/{attempt}/"


def attempt_config(experiment_id: str, stage: str, attempt: int) -> str:
    return f"{attempt_prefix(experiment_id, stage, attempt)}config.json"


def attempt_report(experiment_id: str, stage: str, attempt: int) -> str:
    return f"{attempt_prefix(experiment_id, stage, attempt)}report.json"


def attempt_failure(experiment_id: str, stage: str, attempt: int) -> str:
    return f"{attempt_prefix(experiment_id, stage, attempt)}failure.json"


def attempt_log(experiment_id: str, stage: str, attempt: int) -> str:
    """The log, kept before anything of the app is ended or removed."""
    return f"{attempt_prefix(experiment_id, stage, attempt)}log.txt"


def probe(token: str) -> str:
    return f"{PROBES}{token}"
