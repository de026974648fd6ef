import torch
from transformers import HfArgumentParser, TrainingArguments


def main(argv=None):
    """Train.

    # not a comment
    """
    # All options, see --help.

    # 先解析参数
    # (three groups)
    parser = HfArgumentParser(TrainingArguments)
    return parser.parse_args_into_dataclasses(args=argv), torch
