"""PyTorch from source, with its own MPI backend: plan, preflight, run, script, status."""
