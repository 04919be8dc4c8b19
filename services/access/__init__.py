"""Who asks, and what they may: tokens, the gate that every request goes through, and rules about where a request comes from."""
