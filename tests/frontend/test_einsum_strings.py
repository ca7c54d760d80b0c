"""Einsum strings: how they are read, the program that each one is, and that the program means what NumPy says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einc.base import errors, types
from einc.base.errors import AxisError, CallError, Error, ShapeError
from einc.base.facts import Fact
from einc.base.source import Source
from einc.base.types import F32, DType
from einc.ein.printer import print_program
from einc.frontend.strings.einsum import Reading, bind_einsum, elaborate_einsum
from einc.frontend.strings.layout import operand_name
from einc.frontend.strings.termparser import parse_terms
from einc.frontend.strings.terms import Dots, Group, Subscripts, Term, choose

Shape = tuple[int, ...]


def read(text: str) -> Subscripts:
    return parse_terms(text, Source("<einsum>", text).whole())


def shown(term: Term) -> str:
    """A term with a space between its dims."""

    def show(dim: object) -> str:
        if isinstance(dim, Group):
            return f"({' '.join(map(show, dim.parts))})"
        return "..." if isinstance(dim, Dots) else str(getattr(dim, "name", "?"))

    return " ".join(map(show, term.dims))


def facts(*shapes: Shape, dtype: DType = F32) -> tuple[Fact, ...]:
    return tuple(Fact(s, dtype) for s in shapes)


def program(text: str, *shapes: Shape, **sizes: int) -> str:
    """The text of the program for operands of these shapes, without its first and last line."""
    lines = print_program(bind_einsum(text, facts(*shapes), sizes)[0]).splitlines()
    return "\n".join(line.strip() for line in lines[1:-1])


# ---------------------------------------------------------------------------------------------------------------------
# Reading


@pytest.mark.parametrize(
    ("text", "ranks", "terms"),
    [
        ("ij,jk->ik", (2, 2), ["i j", "j k", "i k"]),
        ("ij k", (3,), ["i j k"]),
        ("ij k", (2,), ["ij k"]),
        (" i j , j ", (2, 1), ["i j", "j"]),
        ("batch time, time", (2, 1), ["batch time", "time"]),
        ("b h q d, b h k d -> b h q d", (4, 4), ["b h q d", "b h k d", "b h q d"]),
        ("b (g r) 1 () d", (5,), ["b (g r) () () d"]),
        ("b0,b1->b0 b1", (1, 1), ["b0", "b1", "b0 b1"]),
        ("...ij,jk", (4, 2), ["... i j", "j k"]),
        ("batch ... -> ... batch", (2,), ["batch ...", "... batch"]),
        ("αβ,βγ->αγ", (2, 2), ["α β", "β γ", "α γ"]),
        ("行列,列", (2, 1), ["行 列", "列"]),
        ("->", (0,), ["", ""]),
        ("", (0,), [""]),
        (",", (0, 0), ["", ""]),
        ("_x y", (2,), ["_x y"]),
    ],
)
def test_reading(text: str, ranks: tuple[int, ...], terms: list[str]) -> None:
    assert [shown(t) for t in choose(read(text), ranks).terms] == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [("ij,jk", ["i j", "j k"]), ("ij k", ["ij k"]), ("i j k", ["i j k"]), ("(ij)k", ["(ij) k"]), ("ij", ["i j"])],
)
def test_reading_without_ranks(text: str, terms: list[str]) -> None:
    assert [shown(t) for t in choose(read(text)).terms] == terms


def test_spans_point_at_letters() -> None:
    source = Source("<einsum>", 'softmax("ab, bc")')
    subscripts = choose(parse_terms("ab, bc", source.span(9, 15)), (2, 2))
    assert [a.span.start for t in subscripts.terms for a in t.axes()] == [9, 10, 13, 14]
    assert [t.span.text for t in subscripts.terms] == ["ab", "bc"]


@pytest.mark.parametrize(
    "text",
    [
        "i..",
        ".i...",
        "j->..j",
        "j->.j...",
        "i%...",
        "...j$",
        "i->&",
        ". . .",
        "... ...",
        "i->j->k",
        "i>j",
        "i-",
        "i->1",
    ],
)
@pytest.mark.parametrize("more", ["", ",", "->"])
def test_what_is_no_einsum_string(text: str, more: str) -> None:
    with pytest.raises(errors.SyntaxError):
        read(text + more)


@given(st.text(alphabet="ij1(). ,->é²\n\0-", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        subscripts = read(text)
    except errors.SyntaxError as error:
        refusal = error
    else:
        assert len(choose(subscripts).terms) == len(subscripts.terms)
        return
    assert refusal.span is not None
    assert str(refusal)


# ---------------------------------------------------------------------------------------------------------------------
# Programs


@pytest.mark.parametrize(
    ("text", "shapes", "lines"),
    [
        ("bik,bkj->bij", [(2, 3, 4), (2, 4, 5)], "out[b, i, j] = sum[k](A[b, i, k] * B[b, k, j])"),
        ("ij,jk", [(2, 3), (3, 4)], "out[i, k] = sum[j](A[i, j] * B[j, k])"),
        ("ba", [(2, 3)], "out[a, b] = A[b, a]"),
        ("ii", [(3, 3)], "out[] = sum[i](A[i, i])"),
        ("ii->i", [(3, 3)], "out[i] = A[i, i]"),
        ("i,i->i", [(3,), (1,)], "out[i] = A[i] * B[0]"),
        ("i,i->i", [(1,), (1,)], "out[i] = A[i] * B[i]"),
        ("i,i->i", [(0,), (1,)], "out[i] = A[i] * B[0]"),
        (",->", [(), ()], "out[] = A[] * B[]"),
        ("...ij,...jk", [(7, 2, 3), (3, 4)], "out[dots0, i, k] = sum[j](A[dots0, i, j] * B[j, k])"),
        ("...,...", [(2, 1, 3), (5, 1)], "out[dots0, dots1, dots2] = A[dots0, 0, dots2] * B[dots1, 0]"),
        ("...b,a", [(2, 3), (4,)], "out[dots0, a, b] = A[dots0, b] * B[a]"),
        ("a...->a", [(2,)], "out[a] = A[a]"),
        ("Ab,b->A", [(2, 3), (3,)], "out[A] = sum[b](A[A, b] * B[b])"),
        ("b (g r) d, b g d", [(2, 6, 5), (2, 3, 5)], "out[r] = sum[b, g, d](A[b, (g r), d] * B[b, g, d])"),
        ("h w -> (w h)", [(2, 3)], "out[(w h)] = A[h, w]"),
        ("a 1 b -> b () a", [(2, 1, 3)], "out[b, 1, a] = A[a, 0, b]"),
        ("a ... -> (... a)", [(2, 3, 4)], "out[(dots0 dots1 a)] = A[a, dots0, dots1]"),
    ],
)
def test_program(text: str, shapes: list[Shape], lines: str) -> None:
    assert program(text, *shapes) == lines


def test_extents_by_keyword() -> None:
    assert program("b (g r) -> b g r", (2, 6), g=2) == "axis g = 2\nout[b, g, r] = A[b, (g r)]"
    assert program("h w -> h w c", (2, 6), c=3) == "axis c = 3\nout[h, w, c] = A[h, w]"
    assert program("ij", (2, 6), i=2) == "out[i, j] = A[i, j]"
    assert bind_einsum("b (g r) -> b g r", facts((2, 6)), {"g": 2})[1] == {"b": 2, "g": 2, "r": 3}


def test_words_of_the_language_are_no_axes() -> None:
    assert (
        program("def axis, axis_ -> def", (2, 3), (4,)) == "out[def_] = sum[axis__, axis_](A[def_, axis__] * B[axis_])"
    )


def test_without_facts() -> None:
    text = print_program(elaborate_einsum("...ij,jk"))
    assert text.startswith("def einsum(A[i, j]: f32, B[j, k]: f32):")


def test_extents_of_composites_are_left_to_the_call_where_only_ranks_are_known() -> None:
    known = elaborate_einsum("(a b), a -> b", facts((2,), (2,)))
    assert known == bind_einsum("(a b), a -> b", facts((15,), (5,)), {})[0]


@pytest.mark.parametrize(
    ("dtypes", "line"),
    [
        ([types.F32, types.F32], "out[i, k] = sum[j](A[i, j] * B[j, k])"),
        ([types.I8, types.I8], "out[i, k]: i8 = sum[j](A[i, j] * B[j, k])"),
        ([types.I64, types.F32], "out[i, k] = sum[j](f64(A[i, j]) * f64(B[j, k]))"),
        ([types.BOOL, types.BOOL], "out[i, k] = any[j](A[i, j] and B[j, k])"),
        ([types.BOOL, types.I16], "out[i, k]: i16 = sum[j](i16(A[i, j]) * B[j, k])"),
        ([types.BF16, types.BF16], "out[i, k] = sum[j](A[i, j] * B[j, k])"),
        ([types.C64, types.F32], "out[i, k] = sum[j](A[i, j] * c64(B[j, k]))"),
    ],
)
def test_types(dtypes: list[DType], line: str) -> None:
    given_ = (Fact((2, 3), dtypes[0]), Fact((3, 4), dtypes[1]))
    assert print_program(bind_einsum("ij,jk", given_, {})[0]).splitlines()[1].strip() == line


def test_computing_in_another_type() -> None:
    text = print_program(bind_einsum("ij->i", (Fact((2, 3), types.F32),), {}, Reading(dtype=types.BOOL))[0])
    assert "out[i] = any[j](A[i, j] != 0)" in text
    text = print_program(bind_einsum("ij->i", (Fact((2, 3), types.C64),), {}, Reading(dtype=types.F32))[0])
    assert "out[i] = sum[j](f32(re(A[i, j])))" in text


def test_many_operands() -> None:
    count = 300
    known, _ = bind_einsum(",".join(["i"] * count), facts(*[(3,)] * count), {})
    assert len(known.operands) == count
    assert known.operands[26].name == "A1"
    assert len({o.name for o in known.operands}) == count
    print_program(known)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("text", "shapes", "kind"),
    [
        ("", [(), ()], CallError),
        (",", [(), (1,), (1,)], CallError),
        (",", [(1,)], CallError),
        ("i", [()], ShapeError),
        ("ij", [(2,)], ShapeError),
        ("...i", [()], ShapeError),
        ("i...j", [(2,)], ShapeError),
        ("i...", [()], ShapeError),
        ("ij...", [(2,)], ShapeError),
        ("i", [(2, 3)], ShapeError),
        ("i->ij", [(2,)], AxisError),
        ("ij->jij", [(2, 2)], AxisError),
        ("ii", [(2, 3)], ShapeError),
        ("ii->i", [(1, 3)], ShapeError),
        ("...->", [(2,)], AxisError),
        ("i,i", [(2,), (3,)], ShapeError),
        ("...,...", [(2,), (2, 3)], ShapeError),
        ("(g r) -> g r", [(6,)], AxisError),
        ("(g r), g -> r", [(6,), (4,)], ShapeError),
        ("(g r), g -> r", [(0,), (0,)], ShapeError),
        ("g 1", [(2, 2)], ShapeError),
        ("ii,i->i", [(2, 2), (3,)], ShapeError),
    ],
)
def test_refused(text: str, shapes: list[Shape], kind: type[Error]) -> None:
    with pytest.raises(kind) as caught:
        bind_einsum(text, facts(*shapes), {})
    assert caught.value.span is not None
    assert caught.value.fact
    assert caught.value.hint


def test_the_axis_that_differs_is_named() -> None:
    with pytest.raises(ShapeError, match="'b'"):
        bind_einsum("aabcb,abc", facts((3, 3, 4, 5, 6), (3, 4, 5)), {})


@pytest.mark.parametrize("sizes", [{"k": 2}, {"i": -1}, {"i": 3}])
def test_extents_that_do_not_fit(sizes: dict[str, int]) -> None:
    with pytest.raises(Error):
        bind_einsum("ij", facts((2, 3)), sizes)


def test_ellipses_left_out_of_the_output_are_summed_as_in_torch() -> None:
    known, _ = bind_einsum("...->", facts((2, 3)), {}, Reading(sum_dots=True))
    assert known.equations[0].over == ("dots0", "dots1")


# ---------------------------------------------------------------------------------------------------------------------
# Types

_NUMPY = {
    "bool": "?", "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8", "u8": "u1", "u16": "u2", "u32": "u4", "u64": "u8",
    "f16": "f2", "f32": "f4", "f64": "f8", "c64": "c8", "c128": "c16",
}  # fmt: skip


@pytest.mark.parametrize("first", _NUMPY)
def test_promotion_is_numpys(first: str) -> None:
    for second in _NUMPY:
        for third in _NUMPY:
            names = (first, second, third)
            wanted = np.result_type(*(np.dtype(_NUMPY[n]) for n in names))
            assert np.dtype(_NUMPY[types.numpy_result(types.BY_NAME[n] for n in names).name]) == wanted


def test_promotion_of_types_that_numpy_lacks_is_torchs() -> None:
    import torch

    theirs = {
        "bf16": torch.bfloat16,
        "i64": torch.int64,
        "f16": torch.float16,
        "f32": torch.float32,
        "c64": torch.complex64,
    }
    for name, dtype in theirs.items():
        joined = types.numpy_join(types.BF16, types.BY_NAME[name])
        assert theirs[joined.name] == torch.promote_types(torch.bfloat16, dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Meaning


@st.composite
def einsums(draw: st.DrawFn, most: int = 4) -> tuple[str, list[Shape]]:
    """A string and the shapes of operands it takes: repeated labels, ellipses, extents 0 and 1, broadcasting."""
    extents = {label: draw(st.integers(0, 4)) for label in "ijklm"}
    dots = draw(st.lists(st.integers(0, 3), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, most))):
        labels = draw(st.lists(st.sampled_from("ijklm"), max_size=3))
        ones = {label for label in labels if draw(st.integers(0, 5)) == 0}
        dims = [1 if label in ones else extents[label] for label in labels]
        if draw(st.integers(0, 2)) == 0:
            at = draw(st.integers(0, len(labels)))
            covered = dots[draw(st.integers(0, len(dots))) :]
            labels.insert(at, "...")
            dims[at:at] = [1 if draw(st.integers(0, 5)) == 0 else n for n in covered]
        terms.append("".join(labels))
        shapes.append(tuple(dims))
    text = ",".join(terms)
    if draw(st.booleans()):
        present = sorted({c for t in terms for c in t if c != "."})
        kept = draw(st.permutations(present))[: draw(st.integers(0, len(present)))]
        if "." in text:
            kept.insert(draw(st.integers(0, len(kept))), "...")
        text += "->" + "".join(kept)
    return text, shapes


def operands(shapes: Sequence[Shape]) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(sum(map(len, shapes)))
    return [rng.integers(-3, 4, size=s) for s in shapes]


@settings(deadline=None, max_examples=150)
@given(einsums())
def test_random_einsums_mean_what_numpy_says(drawn: tuple[str, list[Shape]]) -> None:
    from einc.evaluate import evaluate

    text, shapes = drawn
    values = operands(shapes)
    known, _ = bind_einsum(text, facts(*shapes, dtype=types.I64), {})
    (result,) = evaluate(known, {operand_name(k): v for k, v in enumerate(values)})
    wanted = np.einsum(text, *values)
    assert result.shape == wanted.shape
    np.testing.assert_array_equal(result, wanted)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, list[Shape]]:
    """A string that may be wrong, and shapes that may not fit it."""
    parts = st.sampled_from(["i", "j", "k", "i", "j", "..."])
    terms = ["".join(draw(st.lists(parts, max_size=3))) for _ in range(draw(st.integers(1, 3)))]
    text = ",".join(terms)
    if draw(st.booleans()):
        text += "->" + "".join(draw(st.lists(parts, max_size=3)))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(".,->")) + text[at:]
    ranks = [max(0, len(t.replace("...", "")) + draw(st.sampled_from([0, 0, 0, 1, -1]))) for t in terms]
    return text, [tuple(draw(st.lists(st.integers(1, 3), min_size=r, max_size=r))) for r in ranks]


@settings(deadline=None, max_examples=300)
@given(calls())
def test_what_numpy_refuses_is_refused(drawn: tuple[str, list[Shape]]) -> None:
    text, shapes = drawn
    try:
        wanted = np.einsum(text, *(np.ones(s) for s in shapes)).shape
    except ValueError:
        with pytest.raises(Error):
            bind_einsum(text, facts(*shapes), {})
    else:
        known, extents = bind_einsum(text, facts(*shapes), {})
        assert tuple(extents[axis] for (axis,) in known.equations[0].dims) == wanted
