from torch.distributed import init_process_group as ipg
from transformers import HfArgumentParser, TrainingArguments

ipg("ccl", world_size=2, rank=1)  # at module level


def main():
    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()


main()
