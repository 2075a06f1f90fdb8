"""What a run costs: trained weights, budgets and memory."""
