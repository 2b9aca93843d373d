"""From prepared pictures to batches: split, order, crops, count groups, buckets, padding."""
