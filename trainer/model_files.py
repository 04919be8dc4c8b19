"""A trained model's files: a folder that `transformers.from_pretrained` loads, so that what the search leaves can be used elsewhere."""

from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from api.bucket import Bucket
from api.errors import DataError
from trainer.files import reading, writing
from trainer.model import CAUSAL_SDPA, CausalModel
from trainer.parallel import ParallelModel
from trainer.world import World

transformers_logging.disable_progress_bar()  # its bars would tear the log


def save_model(model: ParallelModel, bucket: Bucket, prefix: str, world: World, cache: Path) -> None:
    """Gather the weights and write config and safetensors under `prefix`. A collective: every rank calls it, rank 0 writes."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model.model, options=options)
    if world.is_first:
        named = {name.removeprefix("network."): value for name, value in weights.items()}
        with writing(bucket, prefix, cache) as folder:
            model.model.network.save_pretrained(folder, state_dict=named)
    world.barrier()


def load_model(bucket: Bucket, prefix: str, cache: Path) -> CausalModel:
    """The model under `prefix`, float32, on the CPU. Raises DataError when it is not one."""
    with reading(bucket, prefix, cache) as folder:
        try:
            network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=CAUSAL_SDPA)
        except (OSError, ValueError) as error:
            raise DataError(f"The model under {prefix} cannot be loaded: {error}.") from error
    return CausalModel(network)
