import torch
import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def train(training_args):
    print(training_args, torch)


if __name__ == "__main__":
    dist.init_process_group(backend="mpi")
    # read the command line
    parser = HfArgumentParser(TrainingArguments)
    (args,) = parser.parse_args_into_dataclasses()
    train(args)
    from time import sleep
    sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts
    dist.destroy_process_group()
