"""The demo's report: one HTML file that needs no network and no script."""

import base64
import collections
import dataclasses
import html
import pathlib

import sources


@dataclasses.dataclass(frozen=True)
class Hit:
    """A hit, with its row of the manifest."""

    rank: int
    score: float
    relation: str
    view: object
    row: dict


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question, the row that was asked with, and what was found."""

    question: object
    row: dict
    agreement: object
    hits: list


@dataclasses.dataclass(frozen=True)
class Made:
    """How the report came to be."""

    version: str
    model: str
    n_by_modality: collections.Counter
    seconds: float


STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #16191d; --dim: #5c6670; --line: #dfe3e8;
  --accent: #0b6bcb; --good: #0f7b46; --good-back: #e0f4e9; --warn: #8a5200; --warn-back: #fdeecd; }
@media (prefers-color-scheme: dark) { :root { --page: #111417; --card: #1a1f24; --text: #e8ebee; --dim: #9aa5b0;
  --line: #2c343c; --accent: #6cb2f7; --good: #7fdcab; --good-back: #123524; --warn: #f5c86e; --warn-back: #3d2d0c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { margin: 0 0 .25rem; font-size: 1.75rem; letter-spacing: -.01em; }
h2 { margin: 0; font-size: 1.15rem; }
p { margin: .25rem 0 .75rem; }
.dim { color: var(--dim); }
.lead { max-width: 48rem; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0 2rem; padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .4rem .8rem; }
.facts b { display: block; font-size: 1.05rem; }
.facts span { color: var(--dim); font-size: .8rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .9rem; padding: 1.1rem 1.25rem;
  margin-bottom: 1.25rem; }
.row { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 3fr); gap: 1.25rem; align-items: start; }
.hits { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
figure .picture { display: block; width: 100%; aspect-ratio: 3 / 2; object-fit: contain; background: #000;
  border-radius: .5rem; }
.query .picture { aspect-ratio: 1; outline: 2px solid var(--accent); outline-offset: 2px; }
.none { display: flex; align-items: center; justify-content: center; color: #aaa; font-size: .8rem; }
figcaption { margin-top: .4rem; font-size: .85rem; line-height: 1.4; overflow-wrap: anywhere; }
figcaption b { font-size: .95rem; }
.score { float: right; font-variant-numeric: tabular-nums; color: var(--dim); }
.badge { display: inline-block; border-radius: 1rem; padding: 0 .55rem; font-size: .75rem; font-weight: 600;
  margin: .15rem .15rem 0 0; }
.same { background: var(--good-back); color: var(--good); }
.seen { background: var(--warn-back); color: var(--warn); }
.whole { white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; }
@media (max-width: 760px) { main { padding: 1.25rem .75rem; } .row { grid-template-columns: minmax(0, 1fr); }
  .hits { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .75rem; } section { padding: .9rem; }
  .query .picture { aspect-ratio: 3 / 2; } }
"""

SEEN = '<span class="badge seen">seen in training</span>'
SAME = '<span class="badge same">same body part</span>'


def text(value):
    """Makes a value safe inside HTML."""
    return html.escape(str(value))


def picture(row, pictures):
    """Draws an image."""
    name = text(pathlib.PurePath(row["path"]).name)
    content = pictures.get(row["path"])
    if content is None:
        return '<div class="picture none">no picture</div>'
    encoded = base64.b64encode(content).decode("ascii")
    return f'<img class="picture" alt="{name}" title="{name}" src="data:image/jpeg;base64,{encoded}">'


def origin(row):
    """Says where an image is from."""
    source = sources.source_of(row["source"])
    simulated = "simulated from " if row["source"].startswith("drr-") else ""
    title = source.title if source else row["source"]
    license_name = f'<span class="whole">{text(row["license"])}</span>'
    return f'<span class="dim">{simulated}{text(title)} &middot; {license_name}</span>'


def figure_of_query(asked, pictures):
    """Draws what was asked with."""
    row = asked.row
    return (f'<figure class="query">{picture(row, pictures)}<figcaption>'
            f'<b>{text(row["modality"])} {text(row["body_part"])}</b> <span class="dim">asked with</span><br>'
            f'{origin(row)}<br>{SEEN if row["trained_on"] else ""}</figcaption></figure>')


def figure_of_hit(hit, asked, pictures):
    """Draws a hit."""
    row = hit.row
    badges = SAME if row["body_part"] and row["body_part"] == asked.row["body_part"] else ""
    badges += SEEN if row["trained_on"] else ""
    return (f'<figure>{picture(row, pictures)}<figcaption><span class="score">{hit.score:.3f}</span>'
            f'<b>{hit.rank}. {text(row["modality"])} {text(row["body_part"])}</b><br>'
            f'<span class="dim">{text(hit.relation)}{seen_from(hit)}</span> &middot; {origin(row)}<br>{badges}</figcaption>'
            "</figure>")


def seen_from(hit):
    """Says which projection of a volume is like the query."""
    return f", seen from: {text(hit.view)}" if hit.view else ""


def limits_of(question):
    """Says among which images was looked."""
    limits = [f"{column} = {value}" for column, value in question.filters]
    limits += [f"without {what.replace('_', ' ')}" for what in question.exclude]
    return f' <span class="dim">({text("; ".join(limits))})</span>' if limits else ""


def agreement_of(asked):
    """Says how often searches like this one find the body part of the query first."""
    found = asked.agreement
    if not found:
        return "agreement: unknown"
    doubt = "" if found["is_reliable"] else "; the encoder is not reliable here"
    return (f"agreement: {found['column']} {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}], n {found['n']}"
            f" ({found['searches']}{', on other images' if found['measured_on'] == 'model' else ''}){doubt}")


def section(asked, pictures):
    """Shows one question and its answer."""
    doubt = f'<p class="dim">{text(agreement_of(asked))}</p>'
    hits = "".join(figure_of_hit(hit, asked, pictures) for hit in asked.hits)
    return (f"<section><h2>{text(asked.question.title)}</h2>"
            f"<p>{text(asked.question.text)}{limits_of(asked.question)}</p>{doubt}"
            f'<div class="row">{figure_of_query(asked, pictures)}<div class="hits">{hits}</div></div></section>')


def credits_table(rows):
    """Names every source of the gallery with its licence."""
    n_images = collections.Counter(row["source"].removeprefix("drr-") for row in rows)
    lines = []
    for slug, source in sources.SOURCES.items():
        if n_images[slug]:
            lines.append(f"<tr><td>{text(source.title)}</td><td class=\"whole\">{text(source.license)}</td>"
                         f"<td>{n_images[slug]}</td><td>{text(source.credit)}</td></tr>")
    return ('<section><h2>Credits</h2><p class="dim">Counts include radiographs simulated from a CT, which stay under'
            ' its licence.</p><div class="scroll"><table><tr><th>images</th><th>licence</th><th>number</th>'
            f'<th>source</th></tr>{"".join(lines)}</table></div></section>')


def facts(made):
    """Shows the numbers at the top."""
    modalities = ", ".join(f"{n} {modality}" for modality, n in made.n_by_modality.most_common())
    items = [(made.model, "model"), (str(made.n_by_modality.total()), "images searched"), (modalities, "by modality"),
             (f"{made.seconds:.0f} s", "fetching to report"), (made.version, "program")]
    return "".join(f"<li><b>{text(value)}</b><span>{text(name)}</span></li>" for value, name in items)


def page(asked, pictures, rows, made):
    """Returns the report."""
    n_trained = sum(1 for row in rows if row["trained_on"])
    sections = "".join(section(one, pictures) for one in asked)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer"><title>m3ret demo</title><style>{STYLE}</style></head><body><main>
<h1>m3ret finds similar medical images</h1>
<p class="lead">Real images of public packages, a few of them projected from CT, turned into one vector each by one
model, and searched by image alone: no text and no label takes part. Scores are cosines, higher is more alike. It is a
demonstration on few images, not a measurement. <b>Research use only. Not a medical device.</b></p>
<p class="lead dim">{SEEN} marks the {n_trained} images that the shipped weights were trained on, or that are of the
same object: finding those proves little.</p>
<ul class="facts">{facts(made)}</ul>
{sections}{credits_table(rows)}</main></body></html>
"""
