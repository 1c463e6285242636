"""A reader of HTML that is stricter than a browser."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}
REFERENCES = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}


class Page(HTMLParser):
    """What a page holds; raises AssertionError where tags do not pair, or an id comes twice."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = re.findall(r"url\(\s*[\"']?([^\"')]*)", text)
        self.text = ""
        self.feed(text)
        self.close()
        assert text.startswith("<!DOCTYPE html>")
        assert not self.open, f"never closed: {self.open}"
        assert len(set(self.ids)) == len(self.ids), "an id comes twice"

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in REFERENCES:
                self.references.append(value)

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data

    def assert_needs_nothing_else(self):
        """Every address is a place in the page, or holds its content itself."""
        for address in self.references:
            inside = address.startswith("#") and address[1:] in self.ids
            assert inside or address.startswith("data:"), f"refers to {address}"
        assert not {"script", "link", "iframe", "object", "embed"} & set(self.tags)
        assert "@import" not in self.text
