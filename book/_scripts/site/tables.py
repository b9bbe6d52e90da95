"""Tables that can be read on a phone: long rows become cards there, and other wide tables scroll in their place."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString

# A row of so many letters in a column, and in all, is a row of sentences.
LONG_CELL, LONG_ROW = 60, 100
# With so many columns a table gets smaller letters, so that it fits beside the sidebars of a small screen; a phone has
# no room for them side by side.
DENSE = 7
# Names of rows with so many letters get room for some words beside one another, where the table scrolls.
LONG_NAME = 24
# What is so short has others beside it on a card.
BRIEF = 12
# Where a name such as 01_neuron_dynamics may go on in the next line.
JOINT = re.compile(r"(?<=_)(?=\w)")
SPACED = re.compile(r"(?<=\S) ± (?=\S)|(?<=\d) (?=%)")


def texts(row: Tag) -> list[str]:
    words = [" ".join(cell.get_text(" ").split()) for cell in row.find_all(["th", "td"])]
    return [text.replace("_ ", "_") for text in words]  # where a line may end, there is no space


def of_sentences(table: Tag) -> bool:
    """Whether the table has three columns or more and is read row by row rather than column by column."""
    rows = [texts(row) for row in table.select("tbody tr")]
    widest = [max(map(len, column)) for column in zip(*rows)]
    return len(widest) > 2 and max(widest) >= LONG_CELL and sum(widest) >= LONG_ROW


def kinds(table: Tag) -> set[str]:
    """The classes of a table, by which the style knows how it may be shown."""
    names = [row[0] for row in map(texts, table.select("tbody tr")) if row]
    is_dense = len(table.select("thead tr:last-child > *")) >= DENSE
    is_named = max(map(len, names), default=0) >= LONG_NAME
    found = {"dense": is_dense, "named": is_named, "cards": is_dense or of_sentences(table)}
    return {kind for kind, is_so in found.items() if is_so}


def fit(page: BeautifulSoup) -> None:
    """Make the tables of a page fit a phone. Done twice, it changes nothing more."""
    article = page.find("article")
    if not isinstance(article, Tag):
        return
    for table in article.find_all("table"):
        if table.find_parent(class_="pst-scrollable-table-container") is None:
            table.wrap(page.new_tag("div", attrs={"class": "pst-scrollable-table-container"}))
        if isinstance(place := table.find_parent(class_="pst-scrollable-table-container"), Tag):
            place["tabindex"] = "0"  # book.js takes it away where all is in sight
        for head in table.find_all("th"):
            if not head.get_text(strip=True) and not head.find("img"):
                head.name = "td"  # a corner: it heads nothing
        new = kinds(table) - set(str(table.get("class", "")).split())
        table["class"] = " ".join([str(table.get("class", "")), *sorted(new)]).strip()
        if "cards" in new:
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
