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
    options = HfArgumentParser([ModelArguments, DataTrainingArguments, Seq2SeqTrainingArguments])
    model_args, data_args, training_args = options.parse_args_into_dataclasses()

    logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    transformers.utils.logging.set_verbosity(training_args.get_process_log_level())
    logger.warning(f"rank {training_args.local_rank}, device {training_args.device}, n_gpu {training_args.n_gpu}")
    set_seed(training_args.seed)

    # The data
    splits = {"train": data_args.train_file, "validation": data_args.validation_file, "test": data_args.test_file}
    rows = load_dataset("json", data_files={split: file for split, file in splits.items() if file})

    # The model
    source = model_args.model_name_or_path
    config = AutoConfig.from_pretrained(source, trust_remote_code=True)
    config.update({"pre_seq_len": model_args.pre_seq_len, "prefix_projection": model_args.prefix_projection})
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=True)
    model = AutoModel.from_pretrained(source, config=config, trust_remote_code=True)

    if model_args.ptuning_checkpoint:
        weights = torch.load(os.path.join(model_args.ptuning_checkpoint, "pytorch_model.bin"))
        start = "transformer.prefix_encoder."
        prefix = {name[len(start):]: value for name, value in weights.items() if name.startswith(start)}
        model.transformer.prefix_encoder.load_state_dict(prefix)

    if model_args.quantization_bit:
        model = model.quantize(model_args.quantization_bit)
    if model_args.pre_seq_len:
        # Only the prefix is tuned: the body is frozen, so half of the bits will do
        model = model.half()
        model.transformer.prefix_encoder.float()
    else:
        # Everything is tuned
        model = model.float()

    asked, answered, before = data_args.prompt_column, data_args.response_column, data_args.history_column

    def pairs(examples):
        for i, query in enumerate(examples[asked]):
            answer = examples[answered][i]
            if query and answer:
                turns = examples[before][i] if before else []
                yield "".join(f"问：{old}\n答：{reply}\n" for old, reply in turns) + query, answer

    def for_training(examples):
        rows = {"input_ids": [], "labels": []}
        for query, answer in pairs(examples):
            query_ids = tokenizer.encode(text=query, add_special_tokens=False)[: data_args.max_source_length - 2]
            answer_ids = tokenizer.encode(text=answer, add_special_tokens=False)[: data_args.max_target_length - 1]
            ids = tokenizer.build_inputs_with_special_tokens(query_ids, answer_ids)
            learnt = ids.index(tokenizer.bos_token_id)
            missing = data_args.max_source_length + data_args.max_target_length - len(ids)
            rows["input_ids"].append(ids + [tokenizer.pad_token_id] * missing)
            rows["labels"].append([-100] * learnt + ids[learnt:] + [-100] * missing)
        return rows

    def for_writing(examples):
        queries, answers = zip(*pairs(examples))
        cut = tokenizer(list(queries), max_length=data_args.max_source_length, truncation=True, padding=True)
        targets = tokenizer(text_target=list(answers), max_length=data_args.max_target_length, truncation=True)
        return {**cut, "labels": targets["input_ids"]}

    def prepare(split, function, limit=None):
        dataset = rows[split]
        if limit is not None:
            dataset = dataset.select(range(min(len(dataset), limit)))
        with training_args.main_process_first(desc=split):
            cached = not data_args.overwrite_cache
            names = dataset.column_names
            return dataset.map(function, batched=True, remove_columns=names, load_from_cache_file=cached)

    train_dataset = prepare("train", for_training) if training_args.do_train else None
    eval_dataset = prepare("validation", for_writing) if training_args.do_eval else None

    def texts(ids):
        return tokenizer.batch_decode(np.where(ids != -100, ids, tokenizer.pad_token_id), skip_special_tokens=True)

    def overlap(written_and_expected):
        written, expected = map(texts, written_and_expected)
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
        compute_metrics=overlap if training_args.predict_with_generate else None,
        save_prefixencoder=bool(model_args.pre_seq_len),
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
        predict_dataset = prepare("test", for_writing, data_args.max_predict_samples)
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
