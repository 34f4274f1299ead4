"""HTML and SVG from plain values. Every text is escaped, unless this module made it."""

import re
from html import escape

# Characters that HTML cannot hold or that no reader can see: control characters and halves of a surrogate pair.
UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VOID = frozenset({"img", "meta", "br"})  # elements without an end


class Html(str):
    """Markup, which goes into other markup as it is."""

    __slots__ = ()


def text(value: object) -> Html:
    """Whatever a file or a person wrote, as text."""
    return value if isinstance(value, Html) else Html(escape(UNSEEN.sub("\ufffd", str(value))))


def join(*parts: object) -> Html:
    """One after the other; None is nothing."""
    return Html("".join(text(part) for part in parts if part is not None))


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """An element. `class_` is written class, `aria_label` aria-label; None and False leave an attribute out."""
    given = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    return Html(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{join(*inside)}</{name}>")


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{text(value)}"'
