"""The compiler's own bugs."""


class IllegalIR(AssertionError):
    """A pass or the elaborator made a program that has not the form it promises; the message prints the node."""
