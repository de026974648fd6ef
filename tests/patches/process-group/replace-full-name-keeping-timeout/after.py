from datetime import timedelta

import torch
from transformers import HfArgumentParser, TrainingArguments


def main():
    parser = HfArgumentParser(TrainingArguments)
    torch.distributed.init_process_group(backend="mpi", timeout=timedelta(
            hours=2,
        ))  # slow disks

    return parser.parse_args_into_dataclasses()
