"""The verbs of `loraloom recall`: the flow that trains a memory's adapters."""
