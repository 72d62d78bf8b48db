"""The page: whole in itself, nothing of the data taken for markup, the right pictures."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from edge_agent.bundle.manifest import RegionRule
from training.evaluate import gallery, report
from training.evaluate.evaluate import ImageView
from training.evaluate.evaluation import Evaluation, Images, Model, Problem, evaluation
from workshop.gate_metrics import logit
from workshop.report import pictures
from workshop.segmentation_metrics import Components, ImageRecord, outcome

HOSTILE = ('<script>alert("1")</script>', "$x$ & 划痕")
_SIDE = 40
_STAGES = ("gate", "segmenter")


def record(number: int, score: float, drawn: int, found: int, *, defective: bool) -> ImageRecord:
    """`drawn` lines of class 1 at the top, `found` of them predicted."""
    planes = np.zeros((_SIDE, _SIDE, 2), bool)
    planes[:drawn, :, 0] = True
    classes = np.zeros((_SIDE, _SIDE), np.uint8)
    classes[:found] = 1
    parts = Components(planes)
    one = outcome(planes, classes, int(found > 0), parts)
    none = outcome(planes, np.zeros_like(classes), 0, parts)
    line = one if score >= logit(0.01) else none
    name = f"<b>{number}</b>.png"
    return ImageRecord(name, number, defective, parts.kinds, score, one, one, (line, line))


RECORDS = [
    record(0, 5.0, 10, 10, defective=True),  # Dice 1
    record(1, 4.0, 10, 5, defective=True),  # 2 * 5 / 15
    record(2, 3.0, 10, 1, defective=True),  # 2 * 1 / 11
    record(3, 2.0, 10, 0, defective=True),  # the segmenter misses it
    record(4, -9.0, 10, 10, defective=True),  # the gate does
    record(5, 1.0, 0, 3, defective=False),  # false alerts
    record(6, 6.0, 0, 3, defective=False),
    record(7, -9.0, 0, 3, defective=False),  # which the gate stops here
    record(8, 1.0, 0, 0, defective=False),
]


def told(
    records: list[ImageRecord],
    stages: tuple[str, ...] = _STAGES,
    problems: tuple[Problem, ...] = (),
) -> Evaluation:
    images = Images(
        data="<i>coil</i>",
        part="unseen",
        judged=len(records),
        clean=sum(not r.defective for r in records),
        drawn=sum(bool(r.kinds) for r in records),
        not_drawn=0,
        seen=0,
        left_out=3,
        problems=problems,
    )
    models = {s: Model(file=f"<{s}>.keras", sha256="0" * 64, knows_seen=True) for s in stages}
    return evaluation(images, models, HOSTILE, RegionRule(), (0.01, 0.5), records)


def view(record: ImageRecord) -> ImageView:
    drawn = np.zeros((_SIDE, _SIDE, 2), bool)
    drawn[:10, :, 0] = record.defective
    found = np.zeros((_SIDE, _SIDE), np.uint8)
    found[:, 20:] = 2
    return ImageView(np.full((_SIDE, _SIDE), 100, np.uint8), drawn, found)


def page(records: list[ImageRecord], stages: tuple[str, ...] = _STAGES, most: int = 6) -> str:
    groups = gallery.choose(records, 0.01 if "gate" in stages else None, most)
    e = told(records, stages)
    return report.html(e, report.plots(e, records), groups, view)


class Reader(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def sources(self) -> list[str]:
        keys = ("src", "href", "srcset")
        return [str(a[key]) for _, a in self.tags for key in keys if key in a]


def test_data_is_never_taken_for_markup() -> None:
    text = page(RECORDS)
    read = Reader(text)
    assert not {"script", "i"} & {t for t, a in read.tags if "style" not in a}
    assert "<b>0</b>" not in text
    assert HOSTILE[0] not in text
    for shown in (*HOSTILE, "<b>0</b>.png", "<i>coil</i>", "<gate>.keras"):
        assert shown in read.text
    assert not [a for _, a in read.tags for key in a if key.startswith("on")]


def test_everything_is_within_the_file() -> None:
    read = Reader(page(RECORDS))
    assert all(s.startswith(("data:", "#")) for s in read.sources())
    policy = [a["content"] for t, a in read.tags if t == "meta" and "http-equiv" in a]
    assert len(policy) == 1
    assert "default-src 'none'" in str(policy[0])


def test_plots_are_svg_in_two_schemes_with_words_beside_them() -> None:
    read = Reader(page(RECORDS))
    plots = [a for t, a in read.tags if t == "img" and "svg" in str(a["src"])[:40]]
    dark = [a for t, a in read.tags if t == "source"]
    assert len(plots) == len(dark) == 5
    for light, other in zip(plots, dark, strict=True):
        assert light["src"] != other["srcset"]
        assert len(str(light["alt"])) > 40
        svg = base64.b64decode(str(light["src"]).partition(",")[2]).decode()
        assert svg.lstrip().startswith("<?xml")
        assert "<script" not in svg
    # The last names the classes; their letters stay letters, whatever they are.
    assert "$x$ &amp; 划痕" in svg


def test_the_same_figures_give_the_same_bytes() -> None:
    assert page(RECORDS) == page(RECORDS)


def test_the_gallery_shows_each_image_under_what_became_of_it() -> None:
    groups = {g.title: g for g in gallery.choose(RECORDS, 0.01, 6)}
    assert numbers(tuple(groups.values())) == {
        "Best": [0, 1],
        "Worst": [2],
        "Missed": [4, 3],
        "False alerts": [6, 5],
    }
    assert groups["Best"].picks[0].caption == "Dice 1.000, gate 0.993"
    assert groups["Missed"].picks[0].caption == "gate 0.000; the gate stopped it"
    assert "2" in groups["Missed"].text
    assert "2" in groups["False alerts"].text


def numbers(groups: tuple[gallery.GalleryGroup, ...]) -> dict[str, list[int]]:
    return {g.title: [p.record.index for p in g.picks] for g in groups}


def without(one: ImageRecord, *stages: str) -> ImageRecord:
    return ImageRecord(
        one.name,
        one.index,
        one.defective,
        one.kinds,
        None if "gate" in stages else one.logit,
        None if "segmenter" in stages else one.pixels,
        None if "segmenter" in stages else one.regions,
        () if stages else one.line,
    )


def test_the_gallery_without_a_gate_or_without_a_segmenter() -> None:
    found = numbers(gallery.choose([without(r, "gate") for r in RECORDS], None, 1))
    assert found == {"Best": [0], "Worst": [2], "Missed": [3], "False alerts": [5]}
    found = numbers(gallery.choose([without(r, "segmenter") for r in RECORDS], 0.01, 6))
    assert found == {"Best": [], "Worst": [], "Missed": [4], "False alerts": [6, 5, 8]}


def test_pictures_show_the_image_what_is_drawn_and_what_is_found() -> None:
    (pick,) = gallery.choose(RECORDS[:1], 0.01, 1)[0].picks
    shown = gallery.entry(pick, view(pick.record), HOSTILE)
    pixels = {}
    for panel in shown.panels:
        data = np.frombuffer(base64.b64decode(panel.url.partition(",")[2]), np.uint8)
        pixels[panel.title] = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)
    assert list(pixels) == ["image", "drawn", "predicted"]
    tints = [0.55 * 100 + 0.45 * np.array(pictures.colour(k)) for k in (1, 2)]
    assert np.abs(pixels["image"] - 100).max() <= 3
    assert np.abs(pixels["drawn"][5, 20] - tints[0]).max() <= 8
    assert np.abs(pixels["drawn"][30, 20] - 100).max() <= 8
    assert np.abs(pixels["predicted"][5, 30] - tints[1]).max() <= 8
    assert np.abs(pixels["predicted"][5, 5] - 100).max() <= 8


def test_a_single_pixel_of_a_large_image_is_still_to_be_seen() -> None:
    image = np.full((300, 4000), 100, np.uint8)
    drawn = np.zeros((300, 4000, 2), bool)
    drawn[150, 2000, 0] = True
    pick = gallery.GalleryImage(RECORDS[0], "")
    shown = gallery.entry(pick, ImageView(image, drawn, None), HOSTILE)
    assert shown.wide
    assert [p.title for p in shown.panels] == ["image", "drawn"]
    data = np.frombuffer(base64.b64decode(shown.panels[1].url.partition(",")[2]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR).astype(int)
    assert picture.shape[:2] == (60, 800)
    assert np.abs(picture - 100).max() > 60


@pytest.mark.parametrize("stages", [("gate",), ("segmenter",)])
@pytest.mark.parametrize(
    "some", [slice(None), slice(1), slice(-1, None)], ids=["all", "bad", "good"]
)
def test_every_combination_makes_a_page_and_a_table(stages: tuple[str, ...], some: slice) -> None:
    missing = {"gate", "segmenter"} - {*stages}
    records = [without(r, *missing) for r in RECORDS[some]]
    text = Reader(page(records, stages)).text
    assert not re.search(r"\b(None|nan|inf)\b", text)
    assert ("The gate" in text) is ("gate" in stages)
    assert ("The segmenter" in text) is ("segmenter" in stages)
    short = report.table(told(records, stages))
    assert not re.search(r"\b(None|nan|inf)\b", short)


def test_figures_and_problems_are_told() -> None:
    problems = tuple(Problem(name=f"p{i}.png", reason="too <short>") for i in range(12))
    e = told(RECORDS, problems=problems)
    text = Reader(report.html(e, report.plots(e, RECORDS), (), view)).text
    assert text.index(e.notice) < text.index("<gate>.keras and")
    assert "60.0 %" in text
    assert "3 of 5; 14.7 to 94.7 %" in text
    assert "12 could not be judged" in text
    assert "p11.png" in text
    assert "too <short>" in text
    short = report.table(e)
    assert short.splitlines()[0] == e.notice
    assert "defective alerted     0.600 [0.147, 0.947]" in short
    assert "p9.png" in short
    assert "p10.png" not in short
