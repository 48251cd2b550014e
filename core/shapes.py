"""The one sentence for every wrong tensor: what was expected, what came."""

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
    known = dict(sizes)
    fits = tensor.ndim == len(axes)
    for axis, size in zip(axes, tensor.shape):
        wanted = int(axis) if axis.isdigit() else known.setdefault(axis, size)
        fits = fits and wanted == size
    if not fits:
        given = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
        where = f" with {given}" if given else ""
        raise ValueError(f"{what}: expected shape ({', '.join(axes)}){where}, got {tuple(tensor.shape)}.")
    return {axis: known[axis] for axis in axes if not axis.isdigit()}
