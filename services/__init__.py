"""The control plane: turns a posted spec into recorded intent, and intent into running attempts."""
