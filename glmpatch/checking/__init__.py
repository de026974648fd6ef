"""Whether the patches still apply: to a folder, to the heads of upstream, to every commit of its history."""
