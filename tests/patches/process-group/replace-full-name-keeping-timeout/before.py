from datetime import timedelta

import torch
from transformers import HfArgumentParser, TrainingArguments


def main():
    parser = HfArgumentParser(TrainingArguments)
    torch.distributed.init_process_group(
        "nccl",
        "env://",
        timedelta(
            hours=2,
        ),
        rank=int("0"),
        device_id=torch.device("cuda:0"),
    )  # slow disks

    return parser.parse_args_into_dataclasses()
