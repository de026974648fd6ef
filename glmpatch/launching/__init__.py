"""The launch script: a placement, an MPI and a template, and the proof that the MPI puts the ranks where we said."""
