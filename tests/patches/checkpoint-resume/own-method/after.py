import os

import numpy as np
import torch


class Trainer:
    def _load_optimizer(self, checkpoint):
        self.optimizer.load_state_dict(torch.load(os.path.join(checkpoint, "optimizer.pt")))

    def _load_rng_state(self, checkpoint):
        path = os.path.join(checkpoint, "rng_state.pth")
        if not os.path.isfile(path):
            logger.info("""
no random state, 没有随机数状态
""")
            return
        from contextlib import nullcontext
        # torch >= 2.6 loads NumPy's random state only where these names are allowed; torch < 2.5 has no such list.
        numpy_names = [np.core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype("uint32"))]
        with getattr(torch.serialization, "safe_globals", nullcontext)(numpy_names):
            states = torch.load(path)  # python, numpy, cpu
        np.random.set_state(states["numpy"])
        torch.random.set_rng_state(states["cpu"])

    def _save_rng_state(self, checkpoint):
        torch.save(self._rng_state(), os.path.join(checkpoint, "rng_state.pth"))
