"""`python -m glmpatch`."""

from glmpatch.cli import main

main()
