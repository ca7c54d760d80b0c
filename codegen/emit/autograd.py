"""What ties two launchers for torch: a function that one runs ahead of, and the other gives the gradients of.

Y, T = f_ahead(A, B);    dA, dB = f_gradient(A, B, T, Y, dY)  -->  Y = f(A, B)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from einc.codegen.emit.bound import called, defaults_last, is_optional, launcher_name
from einc.codegen.emit.layout import indented, wrapped
from einc.codegen.emit.names import OF_LAUNCHERS, Names
from einc.codegen.emit.text import File
from einc.ein import Operand
from einc.ein.printer import print_dims
from einc.pipeline.emitted import Both


def tied(file: File, both: Both) -> list[list[str]]:
    """The lines of the `torch.autograd.Function`, and of the function of the program's name that applies it.

    The launchers of both halves are in the file already.
    """
    own = both.whole
    words = [word[:1].upper() + word[1:] for word in own.name.split("_")]
    return _Tie(file, both, file.names.fresh("".join(words) or "Function")).parts()


class _Tie:
    def __init__(self, file: File, both: Both, kind: str) -> None:
        self.file, self.both, self.kind = file, both, kind
        self.run, self.half, self.own = both.ahead.program, both.behind.program, both.whole
        self.taken = [p.name for p in self.half.scalars]  # scalars that the gradients need

    def parts(self) -> list[list[str]]:
        around = [*self._forward(), "", *self._backward()]
        title = f'"""{launcher_name(self.own)}, whose gradients {launcher_name(self.half)} gives."""'
        return [[f"class {self.kind}(torch.autograd.Function):", *indented([title, "", *around])], self._function()]

    def _names(self) -> tuple[Names, dict[str, str]]:
        """A scope, and the program's parameters in it."""
        names = Names({*OF_LAUNCHERS, "ctx"}, around=self.file.names)
        return names, {p.name: names.fresh(p.name) for p in self.own.params}

    def _forward(self) -> Iterator[str]:
        names, known = self._names()
        for name in self.run.results:
            if name not in known:
                known[name] = names.fresh(name)
        results = [known[name] for name in self.run.results]
        own = results[: len(self.own.results)]
        operands = [p.name for p in self.run.operands]
        saved = [known[operands[k]] if kind == "operand" else results[k] for kind, k in self.both.saved]
        fixed = list(dict.fromkeys(own[k] for k in self.both.fixed if k < len(own)))
        yield "@staticmethod"
        yield f"def forward(ctx, {', '.join(known[p.name] for p in defaults_last(self.own))}):"
        body = [f"{', '.join(results)} = {called(self.run, known)}", f"ctx.save_for_backward({', '.join(saved)})"]
        if self.taken:
            body.append(f"ctx.scalars = {_several(known[name] for name in self.taken)}")
        if fixed:
            body.append(f"ctx.mark_non_differentiable({', '.join(fixed)})")
        yield from indented(line for part in [*body, f"return {', '.join(own)}"] for line in wrapped(part))

    def _backward(self) -> Iterator[str]:
        names = Names({*OF_LAUNCHERS, "ctx"}, around=self.file.names)
        cotangents = [names.fresh(f"d{name}") for name in self.own.results]
        known: dict[str, str] = {}
        for p, (kind, k) in zip(self.half.operands, self.both.sources, strict=True):
            known[p.name] = self._cotangent(cotangents, k, p) if kind == "cotangent" else names.fresh(p.name)
        taken = zip(self.half.operands, self.both.sources, strict=True)
        saved = [known[p.name] for p, (kind, _) in taken if kind != "cotangent"]
        known |= {name: names.fresh(name) for name in self.taken}
        found = [names.fresh(name) for name in self.half.results]
        operands = [p.name for p in self.run.operands]
        of = dict(zip(operands, self.both.gradients, strict=True))
        places = [of.get(p.name) for p in defaults_last(self.own)]
        yield "@staticmethod"
        yield f"def backward(ctx, {', '.join(cotangents)}):"
        body = ["if torch.is_grad_enabled():  # create_graph=True"]
        body.append(f'    raise RuntimeError("{launcher_name(self.own)} is differentiated once")')
        body += [f"{_targets(saved)} = ctx.saved_tensors"] if saved else []
        if self.taken:
            body.append(f"{_targets([known[name] for name in self.taken])} = ctx.scalars")
        body.append(f"{', '.join(found)} = {called(self.half, known)}")
        body.append(f"return {', '.join('None' if k is None else found[k] for k in places)}")
        yield from indented(line for part in body for line in wrapped(part))

    def _cotangent(self, cotangents: Sequence[str], k: int, p: Operand) -> str:
        """The cotangent of a result, which a program may give several times."""
        results = self.own.results
        several = [d for d, name in zip(cotangents, results, strict=True) if name == results[k]]
        whole = " + ".join(several)
        if not p.dtype.is_complex:
            return whole
        return f"{whole if len(several) == 1 else f'({whole})'}.resolve_conj()"

    def _function(self) -> list[str]:
        _, known = self._names()
        order = defaults_last(self.own)
        shown = [known[p.name] + ("=None" if is_optional(p) else "") for p in order]
        call = f"return {self.kind}.apply({', '.join(known[p.name] for p in order)})"
        body = [*self._docstring(known), *wrapped(call)]
        return [f"def {launcher_name(self.own)}({', '.join(shown)}):", *indented(body)]

    def _docstring(self, known: dict[str, str]) -> Iterator[str]:
        dims, dtypes = self.run.shapes(), self.run.dtypes()
        results, operands = (
            ", ".join(f"{name}{print_dims(dims[name])}: {dtypes[name]}" for name in several)
            for several in (self.own.results, [p.name for p in self.own.operands])
        )
        by = [p.name for p, k in zip(self.run.operands, self.both.gradients, strict=True) if k is not None]
        yield f'"""{results} from {operands}.'
        yield ""
        yield f"Torch differentiates it by {', '.join(by)}, once."
        for p in self.own.params:
            if known[p.name] != p.name:
                yield f"`{known[p.name]}` is the program's {p.name}."
        yield '"""'


def _several(names: Iterable[str]) -> str:
    listed = list(names)
    return f"({', '.join(listed)}{',' if len(listed) == 1 else ''})"


def _targets(names: Sequence[str]) -> str:
    return ", ".join(names) + ("," if len(names) == 1 else "")
