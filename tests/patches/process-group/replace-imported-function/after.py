from torch.distributed import init_process_group as ipg
from transformers import HfArgumentParser, TrainingArguments

ipg(backend="mpi")  # at module level


def main():
    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()


main()
from time import sleep
sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts
from torch.distributed import destroy_process_group
destroy_process_group()
