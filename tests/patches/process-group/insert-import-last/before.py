from __future__ import annotations

import argparse
import os


def get_options():
    return argparse.ArgumentParser().parse_args()


if __name__ == "__main__":
    print(get_options(), os)
