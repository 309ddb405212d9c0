"""What a page is made of, read as a browser reads it."""

from html.parser import HTMLParser


class PageParts(HTMLParser):
    """Tags, attributes and text of a page; text of scripts and styles apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.sources: list[str] = []
        self.within = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        (self.sources if self.within in ("script", "style") else self.text).append(data)

    def find(self, name: str) -> list[str]:
        """Values of an attribute."""
        return [value for key, value in self.attributes if key == name]

    @property
    def words(self) -> str:
        """All text on one line."""
        return " ".join(" ".join(self.text).split())
