"""Pages, and text that must be escaped in them."""

from html.parser import HTMLParser

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Collects the tags and the text of a piece of HTML, and sees to it that they are balanced."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open, self.text = set(), [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
