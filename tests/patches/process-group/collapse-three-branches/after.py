import os
from datetime import timedelta

import torch
from torch import distributed
from transformers import HfArgumentParser, TrainingArguments


def main():
    if not distributed.is_initialized():
        distributed.init_process_group(backend="mpi", timeout=timedelta(hours=1))
    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
