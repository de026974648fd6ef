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
        rank = f"_{self.args.process_index}" if self.args.world_size > 1 else ""
        file = os.path.join(checkpoint or "", f"rng_state{rank}.pth")
        if not os.path.isfile(file):
            logger.info(f"{file} is missing: the run will differ from one that was not interrupted")
            return
        states = torch.load(file)
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        torch.set_rng_state(states["cpu"])

    def autocast_smart_context_manager(self, cache_enabled=True):
        if self.use_cpu_amp:
            return torch.cpu.amp.autocast(dtype=self.amp_dtype, cache_enabled=cache_enabled)
        if self.use_cuda_amp:
            return torch.cuda.amp.autocast(dtype=self.amp_dtype, cache_enabled=cache_enabled)
        return contextlib.nullcontext()

    def _save(self, output_dir=None, state_dict=None):
        if self.save_prefixencoder:
            weights = self.model.state_dict()
            tuned = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
            state_dict = {name: weights[name] for name in tuned}
        super()._save(output_dir, state_dict=state_dict)
