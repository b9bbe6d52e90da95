"""Tables that can be read on a phone: rows of sentences become cards there, and wide tables scroll in their place."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString

# A row of so many letters in a column, and in all, is a row of sentences.
LONG_CELL, LONG_ROW = 60, 120
# With so many columns a table gets smaller letters, so that it fits beside the sidebars of a small screen.
DENSE = 7
# What is so short has others beside it on a card.
BRIEF = 12
# Where a name such as 01_neuron_dynamics may go on in the next line.
JOINT = re.compile(r"(?<=_)(?=\w)")
SPACED = re.compile(r"(?<=\S) ± (?=\S)|(?<=\d) (?=%)")


def texts(row: Tag) -> list[str]:
    return [" ".join(cell.get_text(" ").split()) for cell in row.find_all(["th", "td"])]


def of_sentences(table: Tag) -> bool:
    """Whether the table has three columns or more and is read row by row rather than column by column."""
    rows = [texts(row) for row in table.select("tbody tr")]
    widest = [max(map(len, column)) for column in zip(*rows)]
    return len(widest) > 2 and max(widest) >= LONG_CELL and sum(widest) >= LONG_ROW


def fit(page: BeautifulSoup) -> None:
    """Make the tables of a page fit a phone. Done twice, it changes nothing more."""
    article = page.find("article")
    if not isinstance(article, Tag):
        return
    for table in article.find_all("table"):
        if table.find_parent(class_="pst-scrollable-table-container") is None:
            table.wrap(page.new_tag("div", attrs={"class": "pst-scrollable-table-container"}))
        for head in table.find_all("th"):
            if not head.get_text(strip=True) and not head.find("img"):
                head.name = "td"  # a corner: it heads nothing
        if len(table.select("thead tr:last-child > *")) >= DENSE and "dense" not in str(table.get("class", "")).split():
            table["class"] = f"{table.get('class', '')} dense".strip()
        if of_sentences(table) and "cards" not in str(table.get("class", "")).split():
            make_cards(table)
        for text in table.find_all(string=JOINT):
            if type(text) is NavigableString:
                first, *rest = JOINT.split(str(text))
                text.replace_with(first, *(part for piece in rest for part in (page.new_tag("wbr"), piece)))
    for cell in article.find_all(["td", "th", "p", "li"]):
        for text in cell.find_all(string=SPACED, recursive=False):
            if type(text) is NavigableString:  # and no comment
                text.replace_with(SPACED.sub(lambda space: space[0].replace(" ", "\N{NO-BREAK SPACE}"), str(text)))


def make_cards(table: Tag) -> None:
    """Give each cell the name of its column; the roles keep it a table where the style makes blocks of its parts."""
    table["class"] = f"{table.get('class', '')} cards".strip()
    table["role"] = "table"
    heads = table.select("thead tr")
    labels = texts(heads[-1]) if heads else []
    for group in table.find_all(["thead", "tbody"]):
        group["role"] = "rowgroup"
    for row in table.find_all("tr"):
        row["role"] = "row"
        for index, cell in enumerate(row.find_all(["th", "td"])):
            in_head = cell.find_parent("thead") is not None
            cell["role"] = "columnheader" if cell.name == "th" and in_head else "cell"
            text = cell.get_text(strip=True)
            if not in_head and text and index < len(labels) and labels[index]:
                cell["data-label"] = labels[index]
            if not in_head and len(text) <= BRIEF:
                cell["class"] = f"{cell.get('class', '')} brief".strip()
