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
    from time import sleep
    sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts
    dist.destroy_process_group()
