import sys

import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def main():
    # NCCL 不支持 Windows
    dist.init_process_group(backend="mpi")  # fast

    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
