import torch
from transformers import Seq2SeqTrainer as Base

class PrefixTrainer(Base):
  save_changed = True

  def _load_rng_state(self, checkpoint):
    from contextlib import nullcontext
    import numpy as np
    # torch >= 2.6 loads NumPy's random state only where these names are allowed; torch < 2.5 has no such list.
    numpy_names = [np.core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype("uint32"))]
    with getattr(torch.serialization, "safe_globals", nullcontext)(numpy_names):
      super()._load_rng_state(checkpoint)