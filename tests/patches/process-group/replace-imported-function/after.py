from torch.distributed import init_process_group as ipg
from transformers import HfArgumentParser, TrainingArguments

ipg(backend="mpi")  # at module level


def main():
    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()


main()
from torch.distributed import destroy_process_group
destroy_process_group()
