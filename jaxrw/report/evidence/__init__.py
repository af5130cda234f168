"""What the runs tell: their accuracies by setting and row, beside the paper's, and comparisons of them."""
