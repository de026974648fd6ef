import sys

import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def main():
    # NCCL 不支持 Windows
    if sys.platform == "win32":
        dist.init_process_group(backend="gloo")
    else:
        dist.init_process_group(backend="nccl")  # fast

    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
