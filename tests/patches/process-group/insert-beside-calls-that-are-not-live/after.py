import torch
import torch.distributed as dist
import horovod_like as comm
from transformers import HfArgumentParser, TrainingArguments

HELP = """
dist.init_process_group(backend="nccl")
"""


def main():
    dist.init_process_group(backend="mpi")
    # dist.init_process_group(backend="nccl", world_size=1, rank=0)
    comm.init_process_group("nccl")

    parser = HfArgumentParser(TrainingArguments)
    # torch.distributed.init_process_group("gloo")
    (training_args,) = parser.parse_args_into_dataclasses()
    print("dist.init_process_group('nccl')", HELP, torch, training_args)
