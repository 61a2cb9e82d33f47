"""Networks for tables: every one takes {"num": (B, D), "cat": (B, K)} and returns {"num": (B, D), "cat": (B, sum(sizes))}."""
