"""The contract: everything that crosses a wire or a bucket, and nothing else."""
