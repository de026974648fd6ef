import torch
import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def main():
    dist.init_process_group(backend='nccl')  # 初始化进程组
    parser = HfArgumentParser(TrainingArguments)
    (training_args,) = parser.parse_args_into_dataclasses()
    print(torch, training_args)
