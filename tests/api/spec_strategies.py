"""Everything a spec can say: each field of the contract, drawn within its bounds."""

from typing import Any

from hypothesis import strategies as st

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True)
share = st.floats(1e-3, 1)


def optional(fields: dict[str, st.SearchStrategy[Any]], **required: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=fields)


paths = st.lists(st.sampled_from(["/data/a.jsonl", "/data/*.jsonl.zst", "relative/**/x.gz"]), min_size=1, max_size=2)
text_sources = st.one_of(
    optional({"text_field": st.just("content")}, type=st.sampled_from(["jsonl", "parquet"]), paths=paths),
    optional({"text_field": st.just("content")}, type=st.just("datasets"), path=st.just("/data/saved")),
)
token_sources = st.one_of(
    optional({}, type=st.just("nanotron"), path=st.just("/data/n")),
    optional({"domain": st.just("x")}, type=st.just("doremi"), path=st.just("/data/d")),
)
schedules = st.one_of(
    optional({"warmup_fraction": st.floats(0, 0.5), "final_fraction": share}, type=st.sampled_from(["exponential", "cosine"])),
    optional({"warmup_fraction": st.floats(0, 0.5), "decay_fraction": st.floats(0, 0.5)}, type=st.just("warmup_stable_decay")),
)
optimizers = st.one_of(
    optional({"beta1": st.floats(0, 0.99), "beta2": st.floats(0, 0.99), "epsilon": share, "weight_decay": share}, type=st.just("adamw")),
    optional({"weight_decay": share}, type=st.just("adafactor")),
)
trainings = optional(
    {
        "global_batch": st.integers(1, 4096),
        "micro_batch": st.integers(1, 64),
        "learning_rate": share,
        "optimizer": optimizers,
        "schedule": schedules,
        "gradient_clip": st.none() | share,
        "precision": st.sampled_from(["float32", "bfloat16"]),
        "seed": st.integers(0, 2**63 - 1),
        "save_every": st.integers(1, 1000),
        "evaluate_every": st.none() | st.integers(1, 1000),
        "evaluate_sequences": st.integers(1, 1000),
    },
    steps=st.integers(1, 200_000),
)
models = st.one_of(
    st.sampled_from(["70m", "280m", "8b"]).map(lambda preset: {"preset": preset}),
    st.dictionaries(names, st.none() | st.booleans() | st.integers(0, 99) | st.text(max_size=5), max_size=3).map(
        lambda more: {"config": {**more, "model_type": "llama"}}
    ),
)
computes = optional(
    {
        "replicas": st.tuples(st.integers(1, 3), st.integers(0, 3)).map(lambda pair: {"min": pair[0], "max": sum(pair)}),
        "processes": st.integers(1, 8),
        "cpus": st.floats(0.1, 64),
        "memory_mb": st.integers(64, 2**20),
        "gpus": st.integers(0, 8),
        "resources": st.dictionaries(st.sampled_from(["rdma/hca", "example.com/Nic_0"]), st.integers(1, 9)),
        "parallelism": st.sampled_from(["ddp", "fsdp"]),
        "retries": st.integers(0, 100),
        "deadline_seconds": st.none() | st.integers(1, 10**6),
        "stall_seconds": st.integers(10, 10**5),
    }
)
text_tokenizers = st.one_of(
    optional({"vocab_size": st.integers(258, 10**6), "sample_bytes": st.integers(1, 10**9)}, type=st.just("train")),
    optional({"eos_token": st.just("</s>")}, type=st.just("file"), path=st.sampled_from(["/t.json", "bucket:t.json"])),
    optional({"revision": st.just("main")}, type=st.just("hub"), name=st.just("some/tokenizer")),
)


@st.composite
def spec_mappings(draw: st.DrawFn) -> dict[str, Any]:
    tokenised = draw(st.booleans())
    sources = token_sources if tokenised else text_sources
    validation = st.one_of(
        optional({"fraction": st.floats(0.01, 0.4)}, type=st.just("held_out")), optional({}, type=st.just("source"), source=sources)
    )
    domains = draw(
        st.dictionaries(
            names, optional({"max_epochs": st.none() | share, "validation": validation}, source=sources), min_size=1, max_size=4
        )
    )
    weights = st.sampled_from(["tokens", "uniform"]) | st.just({name: draw(share) for name in domains})
    doremi = optional(
        {
            "reference_weights": weights,
            "eta": share,
            "smoothing": st.floats(0, 1),
            "objective": st.sampled_from(["excess", "hardest", "easiest"]),
            "normalisation": st.sampled_from(["domain_mean", "token_weighted"]),
            "absent_domain": st.sampled_from(["zero", "carry"]),
            "reference_losses": st.sampled_from(["live", "precomputed"]),
            "rounds": st.integers(1, 20),
            "tolerance": st.floats(0, 1),
        }
    )
    mixtures = st.lists(st.sampled_from(["averaged", "reference", "uniform", "hardest", "easiest"]), unique=True)
    whole = optional(
        {
            "description": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
            "sequence_length": st.integers(8, 2**20),
            "doremi": doremi,
            "comparison": optional({"mixtures": mixtures, "sequences": st.none() | st.integers(1, 99)}),
            "compute": st.dictionaries(
                st.sampled_from(["default", "prepare", "reference", "proxy", "main", "evaluate"]), computes, max_size=2
            ),
            "adopt": st.sampled_from(["same_digest", "never"]),
            **({} if tokenised else {"tokenizer": text_tokenizers}),
        },
        name=st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True),
        domains=st.just(domains),
        models=optional({"main": models, "compile": st.booleans()}, proxy=models),
        training=optional({"reference": trainings, "main": trainings}, proxy=trainings),
        **(
            {"tokenizer": st.fixed_dictionaries({"type": st.just("pretokenized"), "vocab_size": st.integers(2, 10**6)})}
            if tokenised
            else {}
        ),
    )
    return draw(whole)
