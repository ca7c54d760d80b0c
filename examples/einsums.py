"""The table in einsums.txt, each line run and compared with NumPy: python examples/einsums.py"""

from pathlib import Path

import numpy as np

import einc

TABLE = Path(__file__).with_name("einsums.txt")


def rows() -> list[tuple[str, str, list[tuple[int, ...]]]]:
    """Name, einsum string and shapes of each line; two spaces or more stand between columns."""
    found = []
    for line in TABLE.read_text().splitlines():
        if line and not line.startswith("#"):
            name, text, shapes = (part.strip() for part in line.split("  ") if part.strip())
            found.append((name, text, [tuple(int(n) for n in shape.split("x")) for shape in shapes.split()]))
    return found


def main() -> None:
    generator = np.random.default_rng(0)
    for name, text, shapes in rows():
        operands = [generator.standard_normal(shape) for shape in shapes]
        program = einc.compile(text)
        exact = program(*operands, backend="evaluate")
        error = np.max(np.abs(program(*operands) - exact))
        print(f"{name:20} {text:44} {np.shape(exact)!s:16} error {error:.1e}")


if __name__ == "__main__":
    main()
