import torch
from transformers import HfArgumentParser, TrainingArguments


def parse_args():
    parser = HfArgumentParser(TrainingArguments)
    return parser.parse_args_into_dataclasses()


def main():
    (training_args,) = parse_args()
    print(torch, training_args)


if __name__ == "__main__":
    main()
