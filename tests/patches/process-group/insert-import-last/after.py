from __future__ import annotations

import argparse
import os
import torch
import torch.distributed as dist


def get_options():
    dist.init_process_group(backend="mpi")
    return argparse.ArgumentParser().parse_args()


if __name__ == "__main__":
    print(get_options(), os)
    dist.destroy_process_group()
