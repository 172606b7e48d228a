"""How compilers refuse programs; tests/training and tests/upscaling have the costs of real ones."""

import jax
import pytest

from a2f_jax.errors import UserError
from a2f_jax.hardware import OutOfMemory, compile_costs


class Refusing:
    """In place of a jitted function, one that the compiler refuses."""

    def __init__(self, text):
        self._text = text

    def lower(self, *_):
        return self

    def compile(self):
        raise jax.errors.JaxRuntimeError(self._text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (19.73G) exceeds available HBM "
            "(15.75G).",
            "it needs 19.73 GB of memory, and 15.75 GB are available",
        ),
        (
            "Ran out of memory in memory space vmem. Used 20.01M of 16.00M vmem.\n  Exceeded vmem capacity by 4.0M.",
            "it needs 20.01 MB of memory, and 16.00 MB are available",
        ),
        ("Out of memory while trying to allocate 17179869184 bytes.", "it needs 17179869184 bytes of memory"),
        ("Out of memory while trying to allocate 16.00GiB.", "it needs 16.00 GB of memory"),
        ("Too many\n  registers. Details follow.", "Too many registers"),
    ],
)
def test_what_the_compiler_says_about_memory_becomes_one_readable_line(text, message):
    with pytest.raises(OutOfMemory) as refused:
        compile_costs(Refusing(f"RESOURCE_EXHAUSTED: {text}"))
    assert str(refused.value) == message


def test_another_failure_of_the_compiler_is_one_line_too():
    with pytest.raises(UserError, match=r"cannot compile this program \(INTERNAL: a bug\)"):
        compile_costs(Refusing("INTERNAL: a\n bug"))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("UNAVAILABLE: No PTX compilation provider is available.", r"install ptxas with the extra \[compile\]"),
        ("INTERNAL: ptxas too old. Falling back to the driver.", "the installed ptxas does not know this GPU"),
        ("INTERNAL: something else", "try a smaller batch"),
    ],
)
def test_what_the_compiler_lacks_is_told_with_the_remedy(text, remedy):
    with pytest.raises(UserError, match=remedy):
        compile_costs(Refusing(text))
