import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def main():
    dist.init_process_group(backend="mpi")
    parser = HfArgumentParser(TrainingArguments)
    return parser.parse_args_into_dataclasses()
