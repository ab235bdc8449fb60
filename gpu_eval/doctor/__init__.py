"""What makes a split look like a mix-up, and what would mend it."""
