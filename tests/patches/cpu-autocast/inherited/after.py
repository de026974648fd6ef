from transformers import Trainer


class PrefixTrainer(Trainer):
    def _save(self, output_dir=None):
        save_prefix(self.model, output_dir)
