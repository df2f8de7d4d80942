"""What a run writes down: logs, history, results, error tables, tracking."""
