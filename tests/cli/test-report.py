#!/usr/bin/env python3
"""The report of `pgshare analyze`, looked at in a browser.

usage: test-report.py PROGRAM [TEST...]
"""

import contextlib
import json
import operator
import pathlib
import tempfile

import browser
import elfdump
from program import OK, Skip, main, run

PAGE = 4096


@contextlib.contextmanager
def report_on(*images, options=()):
    """Images of these bytes, and the report in a browser: (browser, figures).

    Nothing may have gone wrong in it by the end, nor anything been asked for.
    """
    path = browser.find()
    if not path:
        raise Skip("there is no Chromium to look at reports with")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for number, data in enumerate(images):
            (folder / f"image-{number}").write_bytes(data)
        page = folder / "out.html"
        result = run("analyze", "--json", "--report", page, *options,
                     *(folder / f"image-{i}" for i in range(len(images))))
        assert result.returncode == OK, result
        shown = browser.Browser(path)
        try:
            shown.open(page.as_uri())
            yield shown, json.loads(result.stdout)
            assert not shown.errors, shown.errors
            assert shown.requests == [page.as_uri()], shown.requests
        finally:
            shown.close()


def pages(*numbers):
    return b"".join(number.to_bytes(4, "little") * (PAGE // 4)
                    for number in numbers)


SOME = (pages(1, 2, 3, 0, 0, 7, 7, *range(100, 200)),
        pages(*range(150, 400), 1, 2, 3, 0, 0, 0))


def text(shown, selector):
    return shown.evaluate(f"document.querySelector('{selector}').innerText")


def number_of(shown, selector):
    return shown.evaluate(f"document.querySelectorAll('{selector}').length")


def test_everything_is_there():
    with report_on(*SOME) as (shown, figures):
        share = 100 * figures["reclaimable_pages"] / figures["pages"]
        assert text(shown, "h1").startswith(f"{share:.0f} % "), text(shown, "h1")
        assert number_of(shown, "#whole .part") == 4
        assert number_of(shown, "#images .image") == 2
        assert number_of(shown, "#maps canvas") == 2
        assert number_of(shown, "#orders .row") == 10
        assert number_of(shown, "#extents .row") == len(figures["extents"])
        assert "image-1" in text(shown, "#images")


def pixels(shown, image):
    """Colours of a map's cells, as text."""
    return shown.evaluate(f"""(() => {{
        const canvas = document.querySelectorAll("#maps canvas")[{image}];
        const copy = new OffscreenCanvas(canvas.width, canvas.height)
            .getContext("2d", {{ willReadFrequently: true }});
        copy.drawImage(canvas, 0, 0);
        const {{ data }} = copy.getImageData(0, 0, canvas.width,
                                             canvas.height);
        return Array.from({{ length: data.length / 4 }},
                          (_, i) => data.slice(4 * i, 4 * i + 4).join());
    }})()""")


def test_map():
    """Each page has the colour of what it is."""
    with report_on(*SOME) as (shown, _):
        first, second = pixels(shown, 0), pixels(shown, 1)
        across, zero, within, unique = first[0], first[3], first[5], first[7]
        assert len({across, zero, within, unique}) == 4
        assert first[:107] == ([across] * 3 + [zero] * 2 + [within] * 2
                               + [unique] * 50 + [across] * 50)
        assert second[:256] == ([across] * 50 + [unique] * 200 + [across] * 3
                                + [zero] * 3)
        assert all(pixel.endswith(",0") for pixel in first[107:])


def test_pointing_at_a_page():
    dump = elfdump.dump([(0, pages(1, 1)), (1 << 30, pages(5, 6))])
    with report_on(dump) as (shown, _):
        box = shown.evaluate("""(() => {
            const canvas = document.querySelector("#maps canvas");
            canvas.scrollIntoView();
            const { left, top, width, height } = canvas.getBoundingClientRect();
            return [left, top, width / canvas.width, height / canvas.height,
                    canvas.width];
        })()""")
        left, top, wide, high, columns = box
        for slot, wanted in ((1, "GFN 0x1,"), (512, "GFN 0x40000,"), (300, "")):
            shown.point(left + (slot % columns + .5) * wide,
                        top + (slot // columns + .5) * high)
            tip = shown.evaluate("document.getElementById('tip').hidden ? '' "
                                 ": document.getElementById('tip').innerText")
            assert tip.startswith(wanted) and bool(tip) == bool(wanted), tip


def contrast(shown, selector):
    """Of text on what is behind it, as WCAG has it."""
    return shown.evaluate(f"""(() => {{
        const element = document.querySelector("{selector}");
        const light = colour => {{
            const [r, g, b] = colour.match(/[0-9.]+/g).map(c => c / 255)
                .map(c => c <= .04 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b;
        }};
        let behind = element;
        while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
            behind = behind.parentElement;
        const [a, b] = [light(getComputedStyle(element).color),
                        light(getComputedStyle(behind).backgroundColor)];
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    }})()""")


def colours(shown):
    """Of the page and of its map, which is drawn by the next frame or so."""
    shown.evaluate("new Promise(requestAnimationFrame)")
    return (shown.evaluate("getComputedStyle(document.body).backgroundColor"),
            pixels(shown, 0)[0])


def test_light_and_dark():
    with report_on(*SOME) as (shown, _):
        before = None, None
        for scheme in "light", "dark":
            shown.prefer(scheme)
            seen, frames = colours(shown), 0
            while any(map(operator.eq, seen, before)) and frames < 100:
                seen, frames = colours(shown), frames + 1
            assert frames < 100, (scheme, seen, before)
            before = seen
            for selector in ("h1", "h1 b", ".lead", ".label", ".amount",
                             "footer", ".kicker", ".legend span"):
                ratio = contrast(shown, selector)
                assert ratio >= 4.4, (scheme, selector, ratio)


def test_any_width():
    """Nothing sticks out, on a telephone either."""
    long = pages(*range(1, 5000))
    with report_on(long, *SOME, long,
                   options=("--groups", "a,b,b," + "x" * 200)) as (shown, _):
        for width in 320, 390, 800, 1280, 2560:
            shown.size(width, 900)
            inner = shown.evaluate("document.documentElement.scrollWidth")
            assert inner <= width, (width, inner)


def test_nothing_to_share():
    for data in pages(1), pages(0), pages(0, 0), pages(1, 1):
        with report_on(data) as (shown, figures):
            rows = number_of(shown, "#orders .row")
            assert rows == (10 if figures["reclaimable_pages"] else 0)


def test_large_image():
    """Cells of several pages, in the colour of most of them."""
    with tempfile.TemporaryDirectory() as name:
        sparse = pathlib.Path(name) / "sparse"
        with open(sparse, "wb") as image:
            image.truncate(1 << 35)
            image.seek(1 << 34)
            image.write(pages(*range(1, 65)))
        with report_on(pages(1), options=[sparse]) as (shown, _):
            cells = pixels(shown, 0)
            assert len(cells) <= 1 << 18
            assert cells[len(cells) // 2] != cells[0] == cells[-1]


def test_strange_content():
    """Names are text, never markup."""
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "<img src=x onerror=alert(1)><!--<script>"
        path.write_bytes(pages(1, 1))
        with report_on(pages(1), options=[path, "--groups", "</script>,&amp;"]
                       ) as (shown, _):
            assert path.name in text(shown, "#images")
            assert "&amp;" in text(shown, "#images")
            assert number_of(shown, "img") == 0


main("cli-report", globals())
