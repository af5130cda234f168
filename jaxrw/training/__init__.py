"""Compiled work on all devices: the training step, accuracies, and the parts that a config stands for."""
