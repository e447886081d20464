"""What is measured, a file a step. Each has `measure(bench)`, and runs in a process of its own."""
