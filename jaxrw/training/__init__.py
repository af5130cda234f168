"""Compiled work on all devices: the training step, accuracies, and the experiment that a config describes."""
