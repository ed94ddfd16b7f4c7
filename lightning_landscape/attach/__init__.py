"""What may be done beside a running fit; the run stays bit-identical."""
