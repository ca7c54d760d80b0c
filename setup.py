"""Names the packages that are installed: every folder with modules, under the four roots of the tree."""

from pathlib import Path

from setuptools import setup

ROOTS = {"einc": "compiler", "einc.frontend": "frontend", "einc.passes": "passes", "einc.codegen": "codegen"}


def packages(package: str, root: str) -> list[str]:
    """The packages in `root`, installed as `package` and below it."""
    folders = sorted(file.parent.relative_to(root) for file in Path(root).rglob("__init__.py"))
    return [".".join((package, *folder.parts)) for folder in folders]


setup(
    packages=[name for package, root in ROOTS.items() for name in packages(package, root)],
    package_dir=ROOTS,
    package_data={"": ["*.lark", "*.ein", "measured/*.json", "py.typed"]},
)
