"""The machine: what it has, and where the ranks go on it. Nothing in here prints or starts a process."""
