import torch
import torch.distributed as d
from transformers import HfArgumentParser, TrainingArguments


def main():
    parser = HfArgumentParser(TrainingArguments)
    (training_args,) = parser.parse_args_into_dataclasses()
    print(d.is_available(), torch, training_args)
