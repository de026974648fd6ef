"""What is missing or slow on this machine, and the command that mends it. Changes nothing."""
