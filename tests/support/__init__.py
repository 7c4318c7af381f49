"""What tests share: checkpoints, adapters, matrices, and mergekit's commands in this process."""
