"""One message for every tensor of a wrong shape: expected and actual."""

from torch import Tensor


def check_shape(tensor: Tensor, pattern: str, what: str, **sizes: int) -> dict[str, int]:
    """Check a tensor's shape where it is used, and read the sizes of its axes.

    Args:
        tensor: the tensor to check.
        pattern: axis letters and fixed sizes separated by spaces, e.g. ``"S 4"`` or ``"B N C"``.
            A letter that occurs twice must have the same size both times.
        what: the user's word for the tensor, used in the message.
        **sizes: sizes already known for some letters.

    Returns:
        The size of every letter of the pattern.

    Raises:
        ValueError: the number of axes or a size differs.
    """
    axes = pattern.split()
    all_sizes = dict(sizes)
    fits = tensor.ndim == len(axes)
    for axis, size in zip(axes, tensor.shape):
        expected_size = int(axis) if axis.isdigit() else all_sizes.setdefault(axis, size)
        fits = fits and expected_size == size
    if not fits:
        conditions = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
        where = f" with {conditions}" if conditions else ""
        raise ValueError(f"{what}: expected shape ({', '.join(axes)}){where}, got {tuple(tensor.shape)}.")
    return {axis: all_sizes[axis] for axis in axes if not axis.isdigit()}
