"""Parts of the benchmark of explanations: data, methods, measures, tasks with known answers."""
