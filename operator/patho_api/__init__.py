"""The contract between the operator and the trainer: names, specifications, status, and what a run executes."""
