"""One run from recipe to result: epochs, steps, devices, processes, memory, progress."""
