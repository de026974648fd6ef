import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments


def main():
    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()


if __name__ == "__main__":
    dist.init_process_group(backend="mpi")
    main()
    from time import sleep
    sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts
    dist.destroy_process_group()
