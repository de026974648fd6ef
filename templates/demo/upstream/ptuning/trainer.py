"""The trainer of P-tuning: it saves the prefix, not the body."""
import contextlib
import os
import random

import numpy as np
import torch
import transformers
from transformers.utils import logging

logger = logging.get_logger(__name__)


class Trainer(transformers.Trainer):
    def __init__(self, *args, save_prefixencoder=False, **kwargs):
        self.save_prefixencoder = save_prefixencoder
        super().__init__(*args, **kwargs)

    def _load_rng_state(self, checkpoint):
        if checkpoint is None:
            return

        if self.args.world_size > 1:
            rng_file = os.path.join(checkpoint, f"rng_state_{self.args.process_index}.pth")
        else:
            rng_file = os.path.join(checkpoint, "rng_state.pth")
        if not os.path.isfile(rng_file):
            logger.info(f"{rng_file} is missing: the run will differ from one that was not interrupted")
            return

        checkpoint_rng_state = torch.load(rng_file)
        random.setstate(checkpoint_rng_state["python"])
        np.random.set_state(checkpoint_rng_state["numpy"])
        torch.random.set_rng_state(checkpoint_rng_state["cpu"])
        if torch.cuda.is_available():
            torch.cuda.random.set_rng_state_all(checkpoint_rng_state["cuda"])

    def autocast_smart_context_manager(self, cache_enabled=True):
        if self.use_cuda_amp or self.use_cpu_amp:
            ctx_manager = (
                torch.cpu.amp.autocast(cache_enabled=cache_enabled, dtype=self.amp_dtype)
                if self.use_cpu_amp
                else torch.cuda.amp.autocast(cache_enabled=cache_enabled, dtype=self.amp_dtype)
            )
        else:
            ctx_manager = contextlib.nullcontext()
        return ctx_manager

    def _save(self, output_dir=None, state_dict=None):
        output_dir = output_dir if output_dir is not None else self.args.output_dir
        if self.save_prefixencoder:
            weights = self.model.state_dict()
            tuned = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
            state_dict = {name: weights[name] for name in tuned}
        super()._save(output_dir, state_dict=state_dict)
