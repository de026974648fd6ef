import torch
from transformers import Trainer


class PrefixTrainer(Trainer):
    def _save(self, output_dir=None):
        torch.save(self.prefix(), output_dir)  # the prefix alone


def unrelated():
    return None
