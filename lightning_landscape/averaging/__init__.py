"""Averages of models: which points to average, and whether the average is worth having."""
