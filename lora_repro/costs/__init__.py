"""What a run costs: budgets of trained weights, and memory."""
