"""Training: batches, learning rate, averages, and the loop that joins them."""
