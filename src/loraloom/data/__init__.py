"""Data: load, recognise, split, encode with label masks, and order into batches."""
