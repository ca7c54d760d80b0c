"""Python names for the user's names: readable, valid, and distinct from all names of the emitted code itself.

Every name of an emitted file is given by a `Names`, the file's or a function's, and none twice; names that code uses
without asking are reserved. So no name of a user's clashes with a generated one.
"""

from __future__ import annotations

import builtins
import keyword
import unicodedata
from collections.abc import Iterable

# Names that emitted code may use without asking: Python's, modules', and its own variables'.
OWN = frozenset(dir(builtins)) | {
    "_",
    "torch",
    "triton",
    "tl",
    "libdevice",
    "math",
    "launch",
    "program",
    "INT",
    "TensorDescriptor",
    "SwizzledDescriptor",
    "gluon",
    "gl",
    "hopper",
    "async_copy",
    "mbarrier",
    "tma",
}
OF_LAUNCHERS = frozenset({"out", "device"})

# Names that a kernel's arguments cannot have: options of a launch, and names in Triton's binder.
OF_TRITON = frozenset(
    "num_warps num_stages num_ctas maxnreg grid warmup debug instrumentation_mode stream options params backend "
    "specialization specialize_impl JITCallable dynamic_func _semantic _generator _builder".split()
)


class Names:
    """The names taken in one scope of emitted code.

    A function's scope lies within its file's: neither takes a name that the other has.
    """

    def __init__(self, reserved: Iterable[str] = (), around: Names | None = None) -> None:
        self.taken = set(reserved)
        self.around = around
        self.inner: set[str] = set()  # taken in the scopes within this one

    def fresh(self, wanted: str, ascii_only: bool = False) -> str:
        """The wanted name if it is free, else numbered."""
        stem = name = identifier(wanted, ascii_only)
        number = 1
        while not self.is_free(name):
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name)
        if self.around is not None:
            self.around.inner.add(name)
        return name

    def is_free(self, name: str) -> bool:
        """Is the name unused in this scope, in those within it and in the one around it?"""
        return (
            name not in self.taken and name not in self.inner and (self.around is None or name not in self.around.taken)
        )


def identifier(text: str, ascii_only: bool = False) -> str:
    """The text as a Python name; a letter that Python (or, for kernels, an assembler) rejects becomes `u03b1`."""
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii() or not text.isidentifier():
        text = "".join(c if _fits(c, ascii_only) else f"u{ord(c):04x}" for c in text)
    if not text.isidentifier() or text.startswith("__"):  # names that begin with two underscores are Python's
        text = f"u{text}" if text.startswith("_") else f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) else text


def _fits(c: str, ascii_only: bool) -> bool:
    return f"_{c}".isidentifier() and (c.isascii() or not ascii_only)
