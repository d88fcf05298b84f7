"""One readable page for each way of learning."""
