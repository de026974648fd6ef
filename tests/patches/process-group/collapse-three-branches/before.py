import os
from datetime import timedelta

import torch
from torch import distributed
from transformers import HfArgumentParser, TrainingArguments


def main():
    if not distributed.is_initialized():
        if torch.cuda.is_available(): distributed.init_process_group("nccl", timeout=timedelta(hours=1))
        elif os.environ.get("USE_MPI"):
            distributed.init_process_group("mpi", timeout=timedelta(hours=1))
        else:
            distributed.init_process_group("gloo", rank=0, timeout=timedelta(hours=1))
    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
