from torch.distributed import get_rank, init_process_group as join
from transformers import HfArgumentParser, TrainingArguments


def main():
    join(backend="mpi")
    parser = HfArgumentParser(TrainingArguments)
    (training_args,) = parser.parse_args_into_dataclasses()
    print(get_rank(), training_args)
