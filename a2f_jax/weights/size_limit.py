"""A limit to what reading a file with weights may take, whatever the file claims."""

import pathlib

LARGEST = 1 << 31
"""Bytes of a file, and of its tensors in memory. Those of the largest network here, EDSR, have 172 million."""


class TooLarge(ValueError):
    """A file, or what it claims to contain, is larger than `LARGEST`."""


def check_file_size(path: pathlib.Path) -> None:
    """Checks that a file is not larger than `LARGEST`.

    Raises:
      TooLarge: it is.
      OSError: the system does not tell.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise TooLarge(f"it has {size:,} bytes, more than the weights of any network here")


def check_tensor_size(size: int) -> None:
    """Checks that tensors of `size` bytes together are not larger than `LARGEST`.

    Raises:
      TooLarge: they are.
    """
    if size > LARGEST:
        raise TooLarge(f"its tensors have {size:,} bytes, more than those of any network here")
