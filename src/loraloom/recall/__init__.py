"""Memory that is written once, learnt into an adapter, settled and forgotten: what thinks about it.

Nothing here computes with tensors; `pipeline.recall` trains.
"""
