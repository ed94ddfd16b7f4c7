"""What the package costs, and its finders set side by side."""
