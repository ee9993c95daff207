"""What notebooks import to check, view and count. Nothing outside this package imports it."""
