"""How far a network is from the published one's numbers."""


def error(a, b) -> float:
    """Largest absolute difference of two tensors of the same shape."""
    assert a.shape == b.shape
    return (a - b).abs().max().item()
