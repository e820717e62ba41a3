"""The feedback service: hands out tasks, records signed rankings, closes epochs, starts retraining; never loads torch."""
