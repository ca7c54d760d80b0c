"""Gluon as a generator: kernels whose warps have roles are its own, all others are written as Triton's.

`AUTO` gives warps roles where these are predicted to pay, on targets where they can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from einc import ein, tile
from einc.base.targets import Target
from einc.codegen.triton.backend import LOAD_AHEAD, TRITON
from einc.pipeline import Context, Pass, on_kernels
from einc.pipeline.emitted import Both, Emitted

# What writes kernels is imported when the first is written: source that was kept on disk needs none of it.


def _specialise_warps(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    from einc.codegen.gluon.roles.specialise_warps import specialise_warps

    return specialise_warps(kernel, context)


def _specialise_where_it_pays(kernel: tile.Kernel, context: Context) -> tile.Kernel:
    from einc.codegen.gluon.roles.pays import pays
    from einc.codegen.gluon.roles.specialise_warps import specialise_warps

    found = specialise_warps(kernel, context)
    return found if pays(found, context) else kernel


def _by(give: Callable[[tile.Kernel, Context], tile.Kernel]) -> Callable[[tile.Kernel, Context], bool]:
    """Does a kernel get roles by this pass?"""
    return lambda kernel, context: context.level >= SPECIALISE_WARPS.level and give(kernel, context).roles is not None


def _emit(program: ein.Program, schedule: tile.Schedule, target: Target) -> Emitted:
    from einc.codegen.gluon.kernels import kernel_source
    from einc.codegen.triton.file import emit

    return emit(program, schedule, target, kernel_source)


def _emit_both(both: Both, target: Target) -> Emitted:
    from einc.codegen.gluon.kernels import kernel_source
    from einc.codegen.triton.file import emit_both

    return emit_both(both, target, kernel_source)


def _account(kernel: tile.Kernel, context: Context) -> tuple[str, ...]:
    from einc.codegen.gluon.account import account

    return account(kernel, context)


def _account_of_both(kernel: tile.Kernel, context: Context) -> tuple[str, ...]:
    from einc.codegen.gluon.account import account
    from einc.codegen.gluon.roles.pays import why_not

    return account(kernel, context, why_not)


def _lacks(target: Target) -> str:
    return "" if target.has_warpgroups else f"{target.name} has no dots of warpgroups"


SPECIALISE_WARPS = Pass(
    "specialise-warps",
    "loop j: s = dot(q, k); p = f(s); o = dot(p, v)  -->  begin s(j), o(j - 1); p(j) = f(s(j)); finish both",
    "copies, dots and what is computed between them go on at the same time, on units of their own",
    on_kernels(_specialise_warps),
    level=2,
    needs=("sized-tiles", "placed-loads"),
    gives=("lowered", "placed-loads"),
)

GLUON = replace(
    TRITON,
    name="gluon",
    passes={**TRITON.passes, "segment-loops": (SPECIALISE_WARPS, LOAD_AHEAD)},
    emit=_emit,
    emit_both=_emit_both,
    lacks=_lacks,
    account=_account,
    counts=_by(_specialise_warps),
)

AUTO = replace(
    GLUON,
    name="auto",
    passes={
        **TRITON.passes,
        "segment-loops": (replace(SPECIALISE_WARPS, run=on_kernels(_specialise_where_it_pays)), LOAD_AHEAD),
    },
    account=_account_of_both,
    counts=_by(_specialise_where_it_pays),
    elsewhere=TRITON,
)
