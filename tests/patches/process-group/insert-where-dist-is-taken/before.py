import torch
from scipy.spatial import distance as dist
from transformers import HfArgumentParser, TrainingArguments


def main():
    parser = HfArgumentParser(TrainingArguments)
    (training_args,) = parser.parse_args_into_dataclasses()
    print(dist.cosine, torch, training_args)
