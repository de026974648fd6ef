"""A trainer that evaluates by letting the model write."""
import torch

from trainer import Trainer


class Seq2SeqTrainer(Trainer):
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval", **gen_kwargs):
        self._gen_kwargs = gen_kwargs
        return super().evaluate(eval_dataset, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix)

    def predict(self, test_dataset, ignore_keys=None, metric_key_prefix="test", **gen_kwargs):
        self._gen_kwargs = gen_kwargs
        return super().predict(test_dataset, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        if not self.args.predict_with_generate or prediction_loss_only:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys=ignore_keys)

        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels", None)
        written = self.model.generate(**inputs, **self._gen_kwargs)
        written = written[:, inputs["input_ids"].size(-1):]

        max_length = self._gen_kwargs["max_length"]
        written = self._pad_to(written, max_length)
        if labels is not None:
            labels = self._pad_to(labels, max_length)
        return None, written, labels

    def _pad_to(self, tensor, max_length):
        padded = torch.full(
            (tensor.size(0), max_length), self.tokenizer.pad_token_id, dtype=tensor.dtype, device=tensor.device
        )
        padded[:, : tensor.size(-1)] = tensor
        return padded
