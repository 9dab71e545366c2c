"""The study file: read and checked (load), then laid out as the rows of its tables (cells), each with its recipes."""
