"""What is wrong with a text that is not in the language, in plain words, and what may have been meant."""

from __future__ import annotations

import re
from collections.abc import Collection

from einc.base.errors import SyntaxError
from einc.base.source import Source, Span

_EXPRESSION = {"NAME", "NUMBER", "LPAR"}
_OPERATORS = {"PLUS", "MINUS", "STAR", "SLASH"}
_WORDS = {
    "NAME": "a name", "NUMBER": "a number", "EQUAL": "'='", "COLON": "':'", "COMMA": "','", "LPAR": "'('",
    "RPAR": "')'", "LSQB": "'['", "RSQB": "']'", "BAR": "'|'", "_NEWLINE": "the end of the line",
    "_INDENT": "an indented line", "_DEDENT": "a line further left", "$END": "the end of the text",
    "DEF": "'def'", "FN": "'fn'", "AXIS": "'axis'", "RETURN": "'return'", "STAR": "'*'",
}  # fmt: skip

_CHARACTERS = {
    "^": "powers are written 'x ** y'",
    "&": "write 'and'",
    "!": "write 'not x', or 'x != y'",
    "~": "write 'not x'",
    "@": "write the sum of products: C[i, j] = A[i, k] * B[k, j]",
    ";": "give each definition a line of its own",
    "{": "subscripts are written in '[...]', groups in '(...)'",
    "}": "subscripts are written in '[...]', groups in '(...)'",
    "\\": "leave it out: lines continue inside brackets",
    "$": "leave it out",
    "?": "choose with where(condition, a, b)",
    "`": "quote einsum strings with \" or '",
    "“": "quote einsum strings with \" or '",
    "”": "quote einsum strings with \" or '",
    "‘": "quote einsum strings with \" or '",
    "’": "quote einsum strings with \" or '",
    ".": "write numbers as 0.5; names have no dots",
    "−": "write '-'",
    "–": "write '-'",
    "×": "write '*'",
    "·": "write '*'",
    "÷": "write '/'",
    "≤": "write '<='",
    "≥": "write '>='",
    "≠": "write '!='",
    "∞": "write 'inf'",
    "∑": "write sum[k](…)",
    "\xa0": "type a plain space",
}  # fmt: skip


def character(source: Source, at: int) -> SyntaxError:
    """The error at a character that begins no token."""
    found = source.text[at]
    if found in "\"'":
        end = re.compile(r"[\r\n]|\Z").search(source.text, at)
        return SyntaxError(
            "this quote is never closed",
            source.span(at, end.start() if end else at + 1),
            fact="an einsum string ends on the line it begins on",
            hint=f"put {found} after it",
        )
    shown = f"'{found}'" if found.isprintable() and not found.isspace() else f"character U+{ord(found):04X}"
    hint = _CHARACTERS.get(found, "leave it out")
    return SyntaxError(f"{shown} is not in the language", source.span(at, at + 1), hint=hint)


def unclosed(bracket: Span) -> SyntaxError:
    closing = ")" if bracket.text == "(" else "]"
    return SyntaxError(f"this '{bracket.text}' is never closed", bracket, hint=f"put '{closing}' where it should end")


def mismatched(bracket: Span, opening: Span | None) -> SyntaxError:
    """A closing bracket that does not match the last open one."""
    if opening is None:
        return SyntaxError(f"this '{bracket.text}' closes nothing", bracket, hint="leave it out, or open a bracket")
    wanted = ")" if opening.text == "(" else "]"
    place = f"line {opening.line}, column {opening.column}"
    return SyntaxError(
        f"this '{bracket.text}' does not close the '{opening.text}' that is open",
        bracket,
        fact=f"'{opening.text}' was opened at {place}",
        hint=f"put '{wanted}' here, or before",
    )


def mixed_indentation(place: Span) -> SyntaxError:
    return SyntaxError(
        "the indentation mixes tabs and spaces",
        place,
        fact="it differs from the lines above in kind, not only in length",
        hint="indent with spaces only",
    )


def odd_indentation(place: Span) -> SyntaxError:
    return SyntaxError(
        "this line is indented like none above it",
        place,
        fact="a line stands as far right as the block it belongs to",
        hint="align it with the lines of its block",
    )


def unexpected(kind: str, place: Span, accepts: Collection[str], before: str) -> SyntaxError:
    """The error at a token of this kind where the grammar has only those that `accepts` names.

    `before` is the text of the token before it.
    """
    message = _message(kind, place, accepts)
    hint = _hint(kind, place, accepts, before)
    return SyntaxError(message, place, fact=f"expected {_expected(accepts)}", hint=hint)


def recurrence(what: str) -> str:
    """How to write a tensor that is defined by its own earlier values, as far as that is possible."""
    return (
        f"write {what} as a reduction over what came before: sum[t](where(t <= i, x[t], 0)), or with a decay "
        "sum[t](where(t <= i, a ** (i - t) * x[t], 0)); max, min and prod work alike; any other step from one value "
        "to the next cannot be written"
    )


def _message(kind: str, place: Span, accepts: Collection[str]) -> str:
    if kind == "_NEWLINE":
        return "the line ends too early"
    if kind == "$END":
        return "the text ends too early"
    if kind == "_INDENT":
        return "this line is indented, but nothing was opened before it"
    if "_INDENT" in accepts:
        return "there is no indented line after the ':'"
    return f"'{_clip(place.text)}' cannot stand here"


def _clip(text: str) -> str:
    return text if len(text) <= 30 else text[:30] + "…"


def _expected(accepts: Collection[str]) -> str:
    """The tokens that could come; all that begin an expression, or continue one, go under one name."""
    rest = set(accepts)
    parts = []
    if rest >= _EXPRESSION:
        parts.append("an expression")
        rest -= {*_EXPRESSION, "MINUS", "PLUS", "NOT", "TRUE", "FALSE", "INF", "BAR", "QUOTED"}
    if rest >= _OPERATORS:
        parts.append("an operator")
        rest -= {*_OPERATORS, "FLOOR", "PERCENT", "POWER", "COMPARE", "AND", "OR", "LPAR", "LSQB"}
    parts += [word for name, word in _WORDS.items() if name in rest]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}" if parts else "nothing more"


def _hint(kind: str, place: Span, accepts: Collection[str], before: str) -> str:
    text = place.text
    line = _line(place)
    if kind == "AXIS" and "(" in line[: place.column - 1]:
        return "name the axes in brackets: softmax[j](x)"
    if text.isalpha() and kind != "NAME" and "NAME" in accepts:
        return f"choose another name: '{text}' is a word of the language"
    if kind == "EQUAL" and before == "=":
        return "write '==' without a space, or leave one out"
    if kind == "EQUAL" and _continues(accepts):
        if re.search(r"\b(dims?|axes|keepdims?)\s*$", line[: place.column - 1]):
            return "name the axes in brackets: softmax[j](x)"
        return "compare with '=='; only a definition has '='"
    if kind == "EQUAL" and accepts == {"NAME"}:
        return "leave it out"
    if kind == "COMPARE" and before in "=-" and text == ">":
        return 'quote einsum strings: "ij,jk->ik"'
    if kind == "COMPARE" and "EQUAL" in accepts and text == "==":
        return "define with a single '='"
    if kind == "BAR" and place.source.text[place.end : place.end + 1] == "|":
        return "write 'or'; an extent is written |d|"
    if "COLON" in accepts and kind in ("_NEWLINE", "$END") and re.match(r"\s*(def|fn)\b", line):
        return "put ':' at the end of the line"
    if "_INDENT" in accepts:
        return "indent the lines of the body"
    if kind == "_INDENT":
        return "begin it below the line above"
    if "EQUAL" in accepts and "COLON" in accepts and kind in ("_NEWLINE", "$END", "LPAR", "COMMA", *_OPERATORS):
        return "name the result: T[i] = …"
    if kind == "QUOTED":
        return "multiply with '*'" if _continues(accepts) else "write tensors with their axes: A[i, j]"
    if kind in ("NAME", "NUMBER", "LPAR", "LSQB") and _continues(accepts):
        words = {"if": "choose with where(condition, a, b)", "is": "compare with '=='", "in": "compare with '=='"}
        return words.get(text, "multiply with '*'")
    if accepts == {"NAME"} or accepts == {"NAME", "STAR"}:
        return "write a name here"
    if _EXPRESSION.issubset(accepts):
        return "leave out what comes before it" if kind in ("_NEWLINE", "$END") else "leave it out"
    return "leave it out" if kind not in ("_NEWLINE", "$END", "_DEDENT") else "finish what the line begins"


def _continues(accepts: Collection[str]) -> bool:
    """Could the expression before this token go on?"""
    return _OPERATORS.issubset(accepts)


def _line(place: Span) -> str:
    text = place.source.text
    start = text.rfind("\n", 0, place.start) + 1
    end = text.find("\n", place.start)
    return text[start : end if end >= 0 else len(text)]
