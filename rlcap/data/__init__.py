"""Data on its way in: annotations, words, features, batches."""
