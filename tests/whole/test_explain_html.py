"""The page of a story is complete in itself and, in a browser, nothing in it overlaps, is cut off or hard to read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

import einc
from einc.present.page import page
from tests.support.explaining import ATTENTION, LAYERNORM, MATMUL, told, told_of
from tests.support.random_programs import Case, cases

CAUSAL = """def causal(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], window: int):
    S[b, h, i, j] = Q[b, h, i, d] * K[b, h, j, d] * rsqrt(|d|)
    P[b, h, i, j] = where(j <= i and i - j < window, S, -inf)
    O[b, h, i, e] = softmax[j](P) * V[b, h, j, e]
    return O"""
EXPERTS = """def experts(X[t, d], W[d, x], U[x, d, f], D[x, f, c]):
    G[t, x] = X[t, d] * W[d, x]
    P[t, x] = softmax[x](G)
    A[t, x, f] = X[t, d] * U[x, d, f]
    H[t, x, f] = max(A, 0)
    Y[t, c] = P[t, x] * H[t, x, f] * D[x, f, c]
    return Y"""
MOMENTS = """def moments(some_long_operand_name[i, j]):
    m[i] = sum[j](some_long_operand_name) / |j|
    skew[i] = sum[j]((some_long_operand_name - m) ** 3)
    kernel_sum[i] = sum[j](exp(-(some_long_operand_name - m) ** 2))
    return skew, kernel_sum"""
DECODING = """def decode(Q[b, h, d], K[b, h, j, d], V[b, h, j, e]):
    S[b, h, j] = Q[b, h, d] * K[b, h, j, d] * rsqrt(|d|)
    O[b, h, e] = softmax[j](S) * V[b, h, j, e]
    return O"""
HEADS = {"b": 2, "h": 8, "i": 4096, "j": 4096, "d": 64}
PAGES: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "attention": (ATTENTION, HEADS, {}),
    "causal": (CAUSAL, HEADS | {"e": 64}, {"window": 1024}),
    "decoding": (DECODING, {"b": 1, "h": 16, "j": 65536, "d": 128, "e": 128}, {}),
    "matmul": (MATMUL, {"b": 8, "i": 4096, "j": 4096, "k": 4096}, {}),
    "layernorm": (LAYERNORM, {"i": 4096, "j": 8192, "e": 4096}, {}),
    "experts": (EXPERTS, {"t": 4096, "d": 1024, "x": 8, "f": 4096, "c": 1024}, {}),
    "moments": (MOMENTS, {"i": 4096, "j": 1 << 20}, {}),
}


def written(name: str) -> str:
    text, sizes, scalars = PAGES[name]
    return page(told(text, sizes, **scalars))


class _Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = ("meta", "br", "link", "img", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def check_form(text: str) -> None:
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert not re.search(r"https?://|<script|<link|<img|@import|url\((?!#)", text)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        root = ElementTree.fromstring(svg)
        labels = root.attrib["aria-labelledby"].split()
        assert [e.tag for e in root if e.attrib.get("id") in labels] == ["title", "desc"]
    idents = re.findall(r'\bid="([^"]+)"', text)
    assert len(idents) == len(set(idents))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete_in_itself(name: str) -> None:
    text = written(name)
    check_form(text)
    assert "before: -O0" in text
    assert "after: -O2" in text


def test_parts_of_a_walk_are_drawn() -> None:
    text, sizes, scalars = PAGES["decoding"]
    s = told(text, sizes, **scalars)
    first, second = s.level.kernels
    assert first.part_starts["j"].shape == first.domains["j"].shape
    assert 1 < first.part_starts["j"][0].sum() <= first.splits  # the last parts may be empty
    assert set(second.moved) == {"o_max_part", "o_sum_part", "o_sum_2_part", "O"}
    assert first.equations[-1].name == "O_sum_2"
    assert second.equations[0].text == f"the states of {first.splits} parts, merged"
    assert f"in {first.splits} parts" in page(s)


def test_a_page_by_name() -> None:
    assert einc.compile(ATTENTION).explain(format="html").startswith("<!doctype html>")


@settings(max_examples=25, deadline=None)
@given(cases())
def test_random_programs(case: Case) -> None:
    check_form(page(told_of(case.program, case.sizes, case.scalars)))


# ---------------------------------------------------------------------------------------------------------------------
# In a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

MEASURE = """
<script>
const faults = [];
addEventListener('error', e => faults.push('error: ' + e.message));
const say = (what, e) => faults.push(what + ': ' + (e.textContent || e.tagName).trim().slice(0, 60));
const box = e => e.getBoundingClientRect();
const shown = e => box(e).width > 0 && box(e).height > 0;
for (const svg of document.querySelectorAll('svg')) {
  const texts = [...svg.querySelectorAll('text')].filter(shown);
  const whole = box(svg);
  texts.forEach((t, n) => {
    const a = box(t);
    if (a.left < whole.left - 1 || a.right > whole.right + 1 || a.top < whole.top - 1 || a.bottom > whole.bottom + 1)
      say('cut off', t);
    for (const u of texts.slice(n + 1)) {
      const b = box(u);
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 0.45 * Math.min(a.height, b.height)) say('overlap with ' + u.textContent, t);
    }
  });
  for (const g of svg.querySelectorAll('g.fit')) {
    const frame = box(g.querySelector('rect'));
    for (const t of g.querySelectorAll('text')) {
      const a = box(t);
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 2 || a.bottom > frame.bottom + 2)
        say('out of its box', t);
    }
  }
}
if (document.documentElement.scrollWidth > innerWidth + 1) faults.push('the page is wider than the window');
for (const e of document.querySelectorAll('h1, h2, h3, p, dd, td, th, figcaption'))
  if (e.scrollWidth > e.clientWidth + 1 && !e.closest('.scroll')) say('too wide', e);
const parse = c => c.match(/[\\d.]+/g).map(Number);
const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = c => parse(c).slice(0, 3).reduce((s, v, k) => s + linear(v / 255) * [.2126, .7152, .0722][k], 0);
const ground = e => {
  for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (c !== 'transparent' && parse(c)[3] !== 0) return c;
  }
  return 'rgb(255, 255, 255)';
};
for (const e of document.querySelectorAll('h1, h2, h3, p, dt, dd, td, th, small, figcaption, text, li')) {
  const style = getComputedStyle(e);
  const inside = e.tagName === 'text' && e.parentElement.querySelector('rect');
  const under = inside && e.parentElement.matches('g.fit') ? getComputedStyle(inside).fill : ground(e);
  const [a, b] = [light(e.tagName === 'text' ? style.fill : style.color), light(under)].sort((x, y) => y - x);
  if ((a + .05) / (b + .05) < 4.5) say('too little contrast', e);
}
const dark = matchMedia('(prefers-color-scheme: dark)').matches;
const back = getComputedStyle(document.body).backgroundColor;
document.body.setAttribute('data-report', JSON.stringify({dark, faults, back}));
</script>
"""


def measured(text: str, folder: Path, width: int, dark: bool) -> Any:
    """What the measuring script finds on the page, and what the console says."""
    assert CHROMIUM is not None
    file = folder / "page.html"
    file.write_text(text.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},1200", "--enable-logging=stderr", *scheme, "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r'data-report="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    report = json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    report["console"] = console
    return report


@in_a_browser
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overlaps(name: str, width: int, tmp_path: Path) -> None:
    report = measured(written(name), tmp_path, width, dark=False)
    assert report["faults"] == []
    assert report["console"] == []
    assert not report["dark"]


@in_a_browser
def test_by_night(tmp_path: Path) -> None:
    report = measured(written("causal"), tmp_path, 1280, dark=True)
    assert report["dark"]
    assert report["back"] == "rgb(18, 22, 26)"
    assert report["faults"] == []
