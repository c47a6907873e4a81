"""The loop: stages, schedule, precision, devices, checkpoint, progress."""
