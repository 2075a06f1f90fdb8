"""What the model is asked: an objective encodes examples, computes the loss of a batch, and predicts. Needs torch."""
