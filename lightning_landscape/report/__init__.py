"""What people and services see: figures, tables, loggers, progress bars."""
