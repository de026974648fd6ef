import torch
from transformers import HfArgumentParser, TrainingArguments

from ptuning_tools.arguments import ModelArguments


def ptuning(**args):

    parser = HfArgumentParser((ModelArguments, TrainingArguments))
    model_args, training_args = parser.parse_dict(args)
    return model_args, training_args, torch


def run(mode):
    if mode == "train":
        ptuning(do_train=True)
    elif mode == "evaluate":
        ptuning(do_predict=True)
