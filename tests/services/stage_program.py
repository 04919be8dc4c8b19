"""A small real stage: it reads its StageConfig, keeps a diary of when it ran, and publishes a result as the trainer does.

Run as `python -I -S stage_program.py --bucket <file url> --config <key>`; standard library only, so that hundreds of runs take seconds.
The stage's behaviour is in the spec's description, as JSON: {"seconds": how long it works, "fail": {stage: [attempts that fail]},
"permanent": [stages that can never work], "hang": {stage: [attempts]}, "delta": a proxy's}.
The diary, `<bucket>/diary.txt`, gets a line `<start|stop|overlap> <experiment> <stage> <attempt>` by one atomic append each: `overlap` when
another attempt of the same stage was running (it holds a lock that the kernel takes back, however it dies).
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

BAD_CONFIG, INTERRUPTED = 64, 75
AT = "2026-01-01T00:00:00Z"


def main() -> int:
    bucket = Path(sys.argv[sys.argv.index("--bucket") + 1].removeprefix("file://"))
    key = sys.argv[sys.argv.index("--config") + 1]
    config = json.loads((bucket / key).read_text())
    experiment, stage, attempt = config["experiment_id"], config["plan"]["name"], config["attempt"]
    behaviour = json.loads(config["spec"]["description"] or "{}")
    folder, mine = bucket / f"experiments/{experiment}/stages/{stage}", (bucket / key).parent

    def note(what: str) -> None:
        descriptor = os.open(bucket / "diary.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{what} {experiment} {stage} {attempt}\n".encode())
        os.close(descriptor)

    lock = os.open(bucket / f".{experiment}-{stage}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("overlap")
    note("start")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INTERRUPTED))
    try:
        print(f"{stage} attempt {attempt} reads {json.dumps(config['inputs'])}", flush=True)
        write(mine / "report.json", {"attempt": attempt, "updated_at": AT, "activity": "working"})
        (folder / f"output/a{attempt}").mkdir(parents=True, exist_ok=True)
        write(folder / f"output/a{attempt}/model", {})
        (folder / "scratch").mkdir(exist_ok=True)
        write(folder / "scratch/part", {})
        time.sleep(1000 if attempt in behaviour.get("hang", {}).get(stage, []) else behaviour.get("seconds", 0))
        permanent = stage in behaviour.get("permanent", [])
        if permanent or attempt in behaviour.get("fail", {}).get(stage, []):
            return fail(mine / "failure.json", attempt, permanent)
        publish(folder, config, behaviour)
        return 0
    finally:
        note("stop")


def fail(path: Path, attempt: int, permanent: bool) -> int:
    exit_code = BAD_CONFIG if permanent else 1
    failure = {"attempt": attempt, "code": "bad_data" if permanent else "unexpected", "message": "This stage was told to fail."}
    write(path, {**failure, "retryable": not permanent, "exit_code": exit_code, "rank": 0, "at": AT})
    return exit_code


def publish(folder: Path, config: dict, behaviour: dict) -> None:
    """Create-if-absent, by a link."""
    plan = config["plan"]
    result = {
        "experiment_id": config["experiment_id"],
        "stage": plan["name"],
        "kind": plan["kind"],
        "round": plan["round"],
        "attempt": config["attempt"],
        "digest": config["digest"],
        "created_at": AT,
        "files": {"model": f"experiments/{config['experiment_id']}/stages/{plan['name']}/output/a{config['attempt']}/"},
    }
    if plan["kind"] == "proxy":
        names = list(config["spec"]["domains"])
        weights = {name: 1 / len(names) for name in names}
        roles = dict.fromkeys(("averaged_weights", "final_weights", "reference_weights"), weights)
        result["searched"] = {**roles, "delta": behaviour.get("delta", 0.5), "history": []}
    partial = folder / f".result.{os.getpid()}"
    partial.write_text(json.dumps(result))
    try:
        os.link(partial, folder / "result.json")
    except FileExistsError:
        print("another attempt was first", flush=True)
    partial.unlink()


def write(path: Path, content: dict) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content))
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
