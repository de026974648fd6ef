"""No torch here yet."""
from __future__ import annotations

import os
import sys

# Hugging Face
import torch
import torch.distributed as dist
import transformers
from transformers import HfArgumentParser, TrainingArguments

from local_metrics import bleu


def main():
    dist.init_process_group(backend="mpi")
    (training_args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    print(training_args, bleu, os, sys, transformers)


if __name__ == '__main__':
    main()
    from time import sleep
    sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts
    dist.destroy_process_group()
