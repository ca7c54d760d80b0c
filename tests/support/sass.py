"""What an assembled kernel does with the registers that all threads of a warp share."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]*) *(.*?) *;")
_UNIFORM = ("U", "R2UR", "S2UR", "VOTEU", "REDUX")  # what writes such a register begins so


def disassembled(cubin: str | bytes) -> str:
    """The instructions of a kernel."""
    import triton.backends.nvidia as nvidia

    assert isinstance(cubin, bytes)
    tool = Path(str(nvidia.__path__[0])) / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout


def loops(sass: str, having: str = "") -> list[list[str]]:
    """The innermost loops of those that have such an instruction."""
    ins, labels = list[str](), dict[str, int]()
    for line in sass.splitlines():
        if found := re.match(r"\s*(\.L_x_\d+):", line):
            labels[found[1]] = len(ins)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            ins.append(found[1])
    back = [
        (labels[m[1]], k) for k, x in enumerate(ins) if (m := re.search(r"BRA.*?(\.L_x_\d+)", x)) and m[1] in labels
    ]
    spans = [(a, b) for a, b in back if a <= b and any(having in x for x in ins[a : b + 1])]
    inner = [s for s in spans if not any(t != s and s[0] <= t[0] and t[1] <= s[1] for t in spans)]
    return [ins[a : b + 1] for a, b in inner]


def unwritten(sass: str) -> list[str]:
    """Instructions that read a uniform register which none above them wrote, in the order of the text."""
    written = set[int]()
    found = list[str]()
    for at, op, rest in _LINE.findall(sass):
        arguments = re.split(r", *", rest) if rest else []
        result = _result(op, arguments)
        read = {n for a in arguments if a is not result for n in _registers(a, arguments)}
        if read - written:
            found.append(f"{at} {op} {rest}")
        if result is not None:
            first = int(result[2:].split(".")[0])
            written |= {first + k for k in range(_width(op))}
    return found


def _result(op: str, arguments: list[str]) -> str | None:
    """The uniform register that is written: the first argument, predicates aside."""
    others = [a for a in arguments[:2] if not re.fullmatch(r"U?P[T\d]", a)]
    wanted = op.startswith(_UNIFORM) and others and re.fullmatch(r"UR\d+(\.\w+)*", others[0])
    return others[0] if wanted else None


def _registers(argument: str, arguments: list[str]) -> set[int]:
    """The uniform registers that an argument reads; a matrix descriptor is of two, both operands' of four."""
    if found := re.search(r"gdesc\[UR(\d+)\]", argument):
        first = int(found[1])
        both = "gdesc" in arguments[1]
        return set(range(first if both else first + 2, first + 4))
    wide = 2 if "desc[" in argument else 1
    return {int(n) + k for n in re.findall(r"\bUR(\d+)\b", argument) for k in range(wide)}


def _width(op: str) -> int:
    return 4 if ".128" in op else 2 if ".64" in op or ".WIDE" in op else 1
