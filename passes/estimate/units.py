"""The seconds that a machine's units take for so many operations.

    arithmetic = dots / matrix units + the slower of operations / vector units and special functions / their units

What is made of a dot's result waits for it, and the next dot for that: matrix units and all others take turns. Clocks
fall while they are busy, and memory has its own work: of the rates of a data sheet a share is reached. On a CPU, whose
rates are measured, all of these take their turns.
"""

from __future__ import annotations

from einc.base.targets import Rates

_REACHED = 0.88  # of the rates of a data sheet
_UNHIDDEN = 1 / 8  # of the time of what is over first, in walks within walks
_MULTIPLY_ADD = 2  # FLOPs of the instruction in whose time vector units do any other
_BESIDE = 1.3  # times as many instructions as operations: addresses, conversions, exchanges between threads


def reached(rates: Rates) -> float:
    """Bytes a second to and from memory, as far as its rate is reached."""
    return rates.memory * (1.0 if rates.in_turn else _REACHED)


def arithmetic(rates: Rates, dots: float, vector: float, special: float) -> tuple[float, str]:
    """Seconds of all processors for so many operations, and the unit that most of them pass in."""
    if rates.in_turn:
        units = {"matrix": dots / rates.matrix, "vector": vector / rates.vector, "special": special / rates.special}
        return sum(units.values()), max(units, key=lambda unit: units[unit])
    issued = vector * _MULTIPLY_ADD * _BESIDE
    units = {"matrix": dots / (rates.matrix * _REACHED), "vector": issued / (rates.vector * _REACHED)}
    units["special"] = special / rates.special
    return units["matrix"] + max(units["vector"], units["special"]), max(units, key=lambda unit: units[unit])


def overlapped(rates: Rates, computing: float, moving: float, again: bool) -> float:
    """Seconds that all processors take for what they compute and move at the same time.

    What a walk within a walk reads `again` it reads through the cache, which it shares with the rest.
    """
    if rates.in_turn:
        return computing + moving
    longer, shorter = max(computing, moving), min(computing, moving)
    return longer + _UNHIDDEN * shorter if again else longer
