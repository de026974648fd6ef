import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def main():
    dist.init_process_group(backend="gloo", init_method="tcp://127.0.0.1:23456", world_size=1, rank=0)
    parser = HfArgumentParser(TrainingArguments)
    return parser.parse_args_into_dataclasses()
