"""HTML from `string.Template`: everything is escaped unless this module made it.

`Markup` is text that is safe as HTML, and `Url` text that is safe behind `href=`. Only this module makes them: from
templates, which are files of Vex, and from text that it has escaped or checked. Whatever else is given to a template is
escaped, so that output that nobody escaped is a type error. Attributes in templates are in double quotes.

A template file holds several templates, each behind a line `<!-- template NAME -->`. Lines are joined without their
indentation.
"""

from __future__ import annotations

import html
import pkgutil
import re
import string
from collections.abc import Iterable, Mapping
from typing import Union, final
from urllib.parse import quote, quote_plus, urlsplit

_MARK = re.compile(r"<!-- template ([a-z_]+) -->\n")
_IN_URL = re.compile(r'\b(?:href|src|action)="\$([a-z_]+)"')
# What cannot be seen, or changes the order of what can: controls, marks and overrides of direction, separators, tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
# What has to be escaped; most texts have nothing of it.
_SPECIAL = re.compile("[&<>\"'" + _INVISIBLE.pattern[1:])
# What is the same in an address, and in the value of a query.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._~/:@!$&'()*+,;=-]*")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9._~-]*")
_MAX_URL = 2000
_MADE_HERE = object()


@final
class Markup:
    """HTML that holds nothing unescaped."""

    __slots__ = ("_text",)

    def __init__(self, text: str, made_here: object) -> None:
        if made_here is not _MADE_HERE:
            raise TypeError("only vex.markup makes Markup; use a template, or escape()")
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)


@final
class Url:
    """An address that is safe as a link: a path of this registry, or one of another place with http or https."""

    __slots__ = ("text",)

    def __init__(self, text: str, made_here: object) -> None:
        if made_here is not _MADE_HERE:
            raise TypeError("only vex.markup makes Url; use local() or external()")
        self.text = text


Value = Union[Markup, Url, str, int]
EMPTY = Markup("", _MADE_HERE)


def escape(text: str) -> Markup:
    """Make text safe within elements and quoted attributes; characters that cannot be seen are shown as their
    numbers.
    """
    return Markup(_escaped(text), _MADE_HERE)


def join(parts: Iterable[Markup], between: str = "") -> Markup:
    """Put pieces one behind the other."""
    return Markup(_escaped(between).join([part._text for part in parts]), _MADE_HERE)


def local(path: str, query: Mapping[str, str] | None = None, fragment: str = "") -> Url:
    """Link to a page of this registry, or to an element of it; raises ValueError for what could leave it."""
    if not path.startswith("/") or path.startswith(("//", "/\\")):
        raise ValueError(f"not a path of this registry: {path!r}")
    text = path if _PLAIN_PATH.fullmatch(path) else quote(path, safe="/:@!$&'()*+,;=~")
    mark = "?"
    for key, value in query.items() if query else ():
        if value:
            text += f"{mark}{key}={value if _PLAIN_VALUE.fullmatch(value) else quote_plus(value)}"
            mark = "&"
    return Url(f"{text}#{quote(fragment)}" if fragment else text, _MADE_HERE)


def within(fragment: str) -> Url:
    """Link to an element of the same page."""
    return Url("#" + quote(fragment), _MADE_HERE)


def external(text: str) -> Url | None:
    """Link to another place, if the text is an address with http or https and nothing else in it."""
    # The length first: urlsplit keeps what it has split last, without a limit in bytes.
    if len(text) > _MAX_URL or not text.lower().startswith(("http://", "https://")):
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    plain = text.isascii() and text.isprintable() and not set(text) & set(" \"'<>\\^`{|}")
    return Url(text, _MADE_HERE) if plain and parts.netloc else None


class Templates:
    """The templates of one file in `vex/web/templates`; each is called with a value for each of its placeholders."""

    def __init__(self, file: str) -> None:
        content = pkgutil.get_data("vex.web", f"templates/{file}")
        if content is None:
            raise FileNotFoundError(file)
        _, *parts = _MARK.split(content.decode())
        self._templates = {name: _Template(text) for name, text in zip(parts[::2], parts[1::2])}

    def __call__(self, template: str, /, **values: Value) -> Markup:
        """Fill in a template; text and numbers are escaped."""
        return self._templates[template].fill(values)


class _Template:
    def __init__(self, text: str) -> None:
        joined = "".join(
            line.strip() if line.strip().startswith("<") else " " + line.strip()
            for line in text.splitlines()
            if line.strip()
        )
        self._urls = frozenset(_IN_URL.findall(joined))
        # Split once: `string.Template` would look for placeholders each time, a third of the time to make a page.
        self._pieces: list[str] = []
        self._places: list[tuple[int, str]] = []
        end = 0
        for match in string.Template.pattern.finditer(joined):
            self._pieces += [joined[end : match.start()], ""]
            self._places.append((len(self._pieces) - 1, match["named"]))
            end = match.end()
        self._pieces.append(joined[end:])

    def fill(self, values: Mapping[str, Value]) -> Markup:
        pieces = self._pieces.copy()
        for place, name in self._places:
            value = values[name]
            if isinstance(value, Markup):
                pieces[place] = value._text
            elif isinstance(value, Url):
                pieces[place] = _escaped(value.text)
            elif name in self._urls:
                raise TypeError(f"${name} is an address, and must be a Url")
            else:
                pieces[place] = _escaped(str(value))
        return Markup("".join(pieces), _MADE_HERE)


def _escaped(text: str) -> str:
    return html.escape(_INVISIBLE.sub(_number, text)) if _SPECIAL.search(text) else text


def _number(character: re.Match[str]) -> str:
    return f"\\u{{{ord(character[0]):x}}}"
