import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def main():
    if dist.is_available() and not dist.is_initialized():
        print("joining")
        dist.init_process_group(backend="mpi")
    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
