"""A small real stage: it reads its StageConfig, keeps a diary of when it ran, and publishes a result as the trainer does.

Run as `python -I -S stage_program.py --bucket <file url> --config <key>`; standard library only, so that hundreds of runs take seconds.
The stage's behaviour is in the spec's description, as JSON: {"seconds": how long it works, "fail": {stage: [attempts that fail]},
"permanent": [stages that can never work], "hang": {stage: [attempts]}, "delta": a proxy's, "steps": of a proxy: with it stages publish
figures as the trainer does, made up; without it, as little as a result may hold}.
The diary, `<bucket>/diary.txt`, gets a line `<start|stop|overlap> <experiment> <stage> <attempt>` by one atomic append each: `overlap` when
another attempt of the same stage was running (it holds a lock that the kernel takes back, however it dies).
"""

import fcntl
import gzip
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
        write(mine / "report.json", report(config, behaviour))
        (folder / f"output/a{attempt}").mkdir(parents=True, exist_ok=True)
        write(folder / f"output/a{attempt}/model", {})
        (folder / "scratch").mkdir(exist_ok=True)
        write(folder / "scratch/part", {})
        if config["plan"]["kind"] == "proxy" and "steps" in behaviour:
            state = {"step": behaviour["steps"], "attempt": attempt, "state": "none/", "created_at": AT}
            (folder / "states").mkdir(exist_ok=True)
            write(folder / "states/latest.json", {**state, "history": history(bucket, config, behaviour["steps"])})
        time.sleep(1000 if attempt in behaviour.get("hang", {}).get(stage, []) else behaviour.get("seconds", 0))
        permanent = stage in behaviour.get("permanent", [])
        if permanent or attempt in behaviour.get("fail", {}).get(stage, []):
            return fail(mine / "failure.json", attempt, permanent)
        publish(bucket, config, behaviour)
        return 0
    finally:
        note("stop")


def fail(path: Path, attempt: int, permanent: bool) -> int:
    exit_code = BAD_CONFIG if permanent else 1
    failure = {"attempt": attempt, "code": "bad_data" if permanent else "unexpected", "message": "This stage was told to fail."}
    write(path, {**failure, "retryable": not permanent, "exit_code": exit_code, "rank": 0, "at": AT})
    return exit_code


def report(config: dict, behaviour: dict) -> dict:
    said = {"attempt": config["attempt"], "updated_at": AT, "activity": "working"}
    if config["plan"]["kind"] != "proxy" or "steps" not in behaviour:
        return said
    weights = uniform(config)
    steps = {"step": behaviour["steps"], "total": behaviour["steps"], "domain_weights": weights, "averaged_weights": weights}
    return {**said, **steps, "excess_losses": dict.fromkeys(weights, 0.25)}


def uniform(config: dict) -> dict:
    names = list(config["spec"]["domains"])
    return {name: 1 / len(names) for name in names}


def history(bucket: Path, config: dict, steps: int) -> list[str]:
    """Two segments of a history that stands still: keys, in order."""
    names = sorted(config["spec"]["domains"])
    prefix = f"experiments/{config['experiment_id']}/stages/{config['plan']['name']}/history"
    (bucket / prefix).mkdir(parents=True, exist_ok=True)
    made = []
    for first, last in ((1, steps // 2), (steps // 2 + 1, steps)):
        header = {"experiment": config["experiment_id"], "stage": config["plan"]["name"], "domains": names, "eta": 1.0, "smoothing": 0.001}
        lines = [{**header, "objective": "excess", "first_step": first}]
        for step in range(first, last + 1):
            alpha = [1 / len(names)] * len(names)
            vectors = {"domain_weights": alpha, "weight_sum": [step * one for one in alpha], "excess_losses": [0.25] * len(names)}
            seen = {
                "tokens_seen": 4 * step,
                "domain_tokens": [4] + [0] * (len(names) - 1),
                "domain_losses": [2.5] + [None] * (len(names) - 1),
            }
            lines.append({"step": step, "attempt": config["attempt"], "count": step, **vectors, **seen})
        key = f"{prefix}/{first:09d}-{last:09d}-a{config['attempt']}.jsonl.gz"
        (bucket / key).write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode(), mtime=0))
        made.append(key)
    return made


def figures(bucket: Path, config: dict, behaviour: dict) -> dict:
    """What a result of this kind says, made up."""
    kind, weights = config["plan"]["kind"], uniform(config)
    roles = dict.fromkeys(("averaged_weights", "final_weights", "reference_weights"), weights)
    if kind == "proxy":
        made = history(bucket, config, behaviour["steps"]) if "steps" in behaviour else []
        return {"searched": {**roles, "delta": behaviour.get("delta", 0.5), "history": made}}
    if "steps" not in behaviour:
        return {}
    losses = {"losses": dict.fromkeys(weights, 2.0), "tokens": dict.fromkeys(weights, 10), "average": 2.0, "worst": 2.0}
    if kind == "prepare":
        validation = dict.fromkeys(("validation_documents", "validation_tokens", "validation_rows"), 1)
        training = {"documents": 2, "tokens": 100, "rows": 3}
        counted = {name: {**training, "share": weights[name], **validation} for name in weights}
        shape = {"vocab_size": 512, "eos_id": 0, "sequence_length": config["spec"]["sequence_length"], "fingerprint": "0" * 64}
        return {"prepared": {"domains": counted, "token_shares": weights, **shape}}
    if kind == "evaluate":
        mixtures = [(one["mixture_name"], one["name"]) for one in config["siblings"] if one["mixture_name"]]
        same = {"sampling_weights": weights, "evaluation": losses, "curve": [], "better": [], "worse": [], "steps_to_baseline": None}
        return {"compared": {"baseline": "reference", "rows": [{"mixture": name, "stage": stage, **same} for name, stage in mixtures]}}
    return {}


def publish(bucket: Path, config: dict, behaviour: dict) -> None:
    """Create-if-absent, by a link."""
    plan = config["plan"]
    folder = bucket / f"experiments/{config['experiment_id']}/stages/{plan['name']}"
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
    result |= figures(bucket, config, behaviour)
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
