import torch
import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def parse_args():
    parser = HfArgumentParser(TrainingArguments)
    return parser.parse_args_into_dataclasses()


def main():
    dist.init_process_group(backend="mpi")
    (training_args,) = parse_args()
    print(torch, training_args)


if __name__ == "__main__":
    main()
    from time import sleep
    sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts
    dist.destroy_process_group()
