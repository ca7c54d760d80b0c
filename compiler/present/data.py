"""Stories as data for JSON: dictionaries, lists, texts and numbers."""

from __future__ import annotations

from dataclasses import asdict

from einc.explain import Story
from einc.explain.figures import Decision, KernelFigures, Level
from einc.explain.transition import Derivation
from einc.explain.visits import Visits


def story_data(s: Story) -> dict[str, object]:
    """The data of a story, which `Program.explain` documents."""
    own = {
        "name": s.name,
        "text": s.text,
        "boundary": s.boundary,
        "kind": s.kind,
        "einsums": list(s.einsums),
        "products": s.products,
        "dependences": s.dependences,
        "optimised": s.optimised,
        "parallel": s.parallel,
        "tested": s.tested,
        "steps": [asdict(step) for step in s.steps],
        "reuse": s.reuse,
        "sizes": s.sizes,
        "story": [asdict(stage) for stage in s.stages],
    }
    found = own | level_data(s.level) | {"levels": [level_data(f) for f in s.levels]}
    found |= {"unheeded": s.unheeded} if s.unheeded else {}
    found |= {"saving": [asdict(t) for t in s.saving]} if s.saving else {}
    found |= {"scatters": [asdict(w) for w in s.scatters]} if s.scatters else {}
    found |= {"slices": asdict(s.slices)} if s.slices is not None else {}
    if s.measured is not None:
        machine, entry = s.measured
        found |= {"measured": {"machine": machine, **entry.data()}}
    return found | {"not_closed": [asdict(o) for o in s.not_closed]}


def level_data(f: Level) -> dict[str, object]:
    return {
        "level": f.level,
        "target": f.target,
        "machine": f.machine,
        "equations": f.equations,
        "kernels": [_kernel_data(k) for k in f.kernels],
        "sweeps": f.sweeps,
        "intermediates": [asdict(t) for t in f.intermediates],
        "intermediate_bytes": f.intermediate_bytes,
        "flops": f.flops,
        "bytes": f.bytes,
        "intensity": f.intensity,
        "predicted_us": f.predicted_us,
        "not_closed": [asdict(o) for o in f.not_closed],
        "decisions": [_decision_data(d) for d in f.decisions],
        "by_model": f.by_model,
    }


def _decision_data(d: Decision) -> dict[str, object]:
    return {
        "kernels": [list(names) for names in d.kernels],
        "joined": d.joined,
        "apart_us": 1e6 * d.apart,
        "together_us": None if d.together is None else 1e6 * d.together,
        "reason": d.reason,
        "spared": list(d.spared),
    }


def _kernel_data(k: KernelFigures) -> dict[str, object]:
    found: dict[str, object] = {
        "name": k.name,
        "equations": [e.name for e in k.equations],
        "grid": list(k.grid),
        "streamed": list(k.streamed),
        "within": list(k.within),
        "held": list(k.held),
        "accumulators": {d.reduction: _accumulators(d) for d in k.derivations},
        "state": [asdict(s) for s in k.state],
        "state_bytes_per_row": k.state_bytes_per_row,
        "tiles": {axis: _tiles(v) for axis, v in k.tiles.items()},
        "choices": k.choices,
        "splits": k.splits,
        "reads": list(k.reads),
        "writes": list(k.writes),
        "flops": k.flops,
        "bytes": k.bytes,
        "intensity": k.flops / k.bytes if k.bytes else 0.0,
        "predicted_us": k.predicted_us,
        "limit": k.limit,
        "derivation": [asdict(d) for d in k.derivations],
    }
    return found | {"account": list(k.account)} if k.account else found


def _accumulators(d: Derivation) -> list[dict[str, object]]:
    return [{"name": a.name, "body": a.body, "axes": list(a.axes), "moves": a.moves} for a in d.accumulators]


def _tiles(v: Visits) -> dict[str, int | bool]:
    return {"visited": v.visited, "full": v.full, "mixed": v.mixed, "total": v.total, "sample": v.sample}
