"""Tune the prefix of ChatGLM (P-tuning v2), or the whole of it, on question-and-answer pairs."""
import json
import logging
import os
import sys

import numpy as np
import torch
import transformers
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    HfArgumentParser,
    Seq2SeqTrainingArguments,
    set_seed,
)

from arguments import DataTrainingArguments, ModelArguments
from trainer_seq2seq import Seq2SeqTrainer

logger = logging.getLogger(__name__)


def main():
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, Seq2SeqTrainingArguments))
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        model_args, data_args, training_args = parser.parse_json_file(json_file=os.path.abspath(sys.argv[1]))
    else:
        model_args, data_args, training_args = parser.parse_args_into_dataclasses()

    logging.basicConfig(
        format="%(asctime)s - %(levelname)s - %(name)s - %(message)s", handlers=[logging.StreamHandler(sys.stdout)]
    )
    transformers.utils.logging.set_verbosity(training_args.get_process_log_level())
    logger.warning(f"rank {training_args.local_rank}, device {training_args.device}, n_gpu {training_args.n_gpu}")
    set_seed(training_args.seed)

    # The data
    data_files = {}
    if data_args.train_file is not None:
        data_files["train"] = data_args.train_file
    if data_args.validation_file is not None:
        data_files["validation"] = data_args.validation_file
    if data_args.test_file is not None:
        data_files["test"] = data_args.test_file
    raw_datasets = load_dataset("json", data_files=data_files)

    # The model
    config = AutoConfig.from_pretrained(model_args.model_name_or_path, trust_remote_code=True)
    config.pre_seq_len = model_args.pre_seq_len
    config.prefix_projection = model_args.prefix_projection

    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, trust_remote_code=True)
    model = AutoModel.from_pretrained(model_args.model_name_or_path, config=config, trust_remote_code=True)

    if model_args.ptuning_checkpoint is not None:
        weights = torch.load(os.path.join(model_args.ptuning_checkpoint, "pytorch_model.bin"))
        start = "transformer.prefix_encoder."
        prefix = {name[len(start):]: value for name, value in weights.items() if name.startswith(start)}
        model.transformer.prefix_encoder.load_state_dict(prefix)

    if model_args.quantization_bit is not None:
        print(f"Quantized to {model_args.quantization_bit} bit")
        model = model.quantize(model_args.quantization_bit)
    if model_args.pre_seq_len is not None:
        # P-tuning v2: the body is frozen, so half of the bits will do
        model = model.half()
        model.transformer.prefix_encoder.float()
    else:
        # Everything is tuned
        model = model.float()

    prompt_column = data_args.prompt_column
    response_column = data_args.response_column
    history_column = data_args.history_column

    def pairs(examples):
        for i, query in enumerate(examples[prompt_column]):
            answer = examples[response_column][i]
            if not query or not answer:
                continue
            history = examples[history_column][i] if history_column is not None else []
            yield "".join(f"问：{old}\n答：{reply}\n" for old, reply in history) + query, answer

    def preprocess_function_train(examples):
        model_inputs = {"input_ids": [], "labels": []}
        max_seq_length = data_args.max_source_length + data_args.max_target_length
        for query, answer in pairs(examples):
            a_ids = tokenizer.encode(text=query, add_special_tokens=False)[: data_args.max_source_length - 2]
            b_ids = tokenizer.encode(text=answer, add_special_tokens=False)[: data_args.max_target_length - 1]
            input_ids = tokenizer.build_inputs_with_special_tokens(a_ids, b_ids)
            context_length = input_ids.index(tokenizer.bos_token_id)
            pad_len = max_seq_length - len(input_ids)
            labels = [-100] * context_length + input_ids[context_length:] + [-100] * pad_len
            model_inputs["input_ids"].append(input_ids + [tokenizer.pad_token_id] * pad_len)
            model_inputs["labels"].append(labels)
        return model_inputs

    def preprocess_function_eval(examples):
        queries, answers = zip(*pairs(examples))
        model_inputs = tokenizer(list(queries), max_length=data_args.max_source_length, truncation=True, padding=True)
        targets = tokenizer(text_target=list(answers), max_length=data_args.max_target_length, truncation=True)
        model_inputs["labels"] = targets["input_ids"]
        return model_inputs

    def prepare(split, function, limit=None):
        dataset = raw_datasets[split]
        if limit is not None:
            dataset = dataset.select(range(min(len(dataset), limit)))
        with training_args.main_process_first(desc=split):
            return dataset.map(
                function,
                batched=True,
                remove_columns=dataset.column_names,
                load_from_cache_file=not data_args.overwrite_cache,
            )

    train_dataset = prepare("train", preprocess_function_train) if training_args.do_train else None
    eval_dataset = prepare("validation", preprocess_function_eval) if training_args.do_eval else None

    def texts(ids):
        return tokenizer.batch_decode(np.where(ids != -100, ids, tokenizer.pad_token_id), skip_special_tokens=True)

    def compute_metrics(eval_preds):
        written, expected = map(texts, eval_preds)
        overlaps = [len(set(a) & set(b)) / max(1, len(set(a) | set(b))) for a, b in zip(written, expected)]
        return {"overlap": float(np.mean(overlaps))}

    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model, label_pad_token_id=-100, padding=False)
    trainer = Seq2SeqTrainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        tokenizer=tokenizer,
        data_collator=data_collator,
        compute_metrics=compute_metrics if training_args.predict_with_generate else None,
        save_prefixencoder=model_args.pre_seq_len is not None,
    )

    if training_args.do_train:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
        train_result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
        trainer.log_metrics("train", train_result.metrics)
        trainer.save_metrics("train", train_result.metrics)
        trainer.save_state()

    gen_kwargs = {"max_length": data_args.max_source_length + data_args.max_target_length, "do_sample": False}
    if training_args.do_eval:
        metrics = trainer.evaluate(metric_key_prefix="eval", **gen_kwargs)
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)

    if training_args.do_predict:
        predict_dataset = prepare("test", preprocess_function_eval, data_args.max_predict_samples)
        results = trainer.predict(predict_dataset, metric_key_prefix="predict", **gen_kwargs)
        trainer.log_metrics("predict", results.metrics)
        trainer.save_metrics("predict", results.metrics)

        if trainer.is_world_process_zero() and training_args.predict_with_generate:
            written, expected = texts(results.predictions), texts(results.label_ids)
            path = os.path.join(training_args.output_dir, "generated_predictions.txt")
            with open(path, "w", encoding="utf-8") as file:
                for label, prediction in zip(expected, written):
                    file.write(json.dumps({"labels": label, "predict": prediction}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
