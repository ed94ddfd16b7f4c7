"""What the present weights are compared with, one pairing a file."""
