"""Bytes on the disk that are whole or absent."""
