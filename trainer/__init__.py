"""The data plane: turns one stage config into results in a bucket, and never knows who asked."""
