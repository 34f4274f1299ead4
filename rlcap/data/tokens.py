"""The words of a caption as coco-caption scores them: PTB-style, lower-case, without punctuation.

coco-caption (pycocoevalcap) runs Stanford's PTBTokenizer 3.4.1 and drops a list of punctuation marks;
published BLEU and CIDEr count the words that are left. This is the same in Python, written from the tool's
observed behaviour: of all kinds of word that begin at a place the longest is taken, the first of equals.

Known differences (none in 35,000 Flickr8k captions and 15,000 COCO captions):
- the Java tool looks into the next caption ("no." keeps its stop there if the next one begins with a number);
- white space inside a word (telephone numbers, "3 1/2") separates two words here, as in BLEU and CIDEr there;
- opening and closing quotation marks side by side (“‘), and curly apostrophes in rare places (O‘Brien);
- words glued by stops or commas to a hyphenated one (red...t-shirt), abbreviations glued to more (pp.5-6);
- words glued to e-mail and web addresses, or to what looks like one because of an @.
"""

import re

TOKENISER = "ptb-1"  # stored with whatever was counted over these words: a change of the words is a new name

# What coco-caption drops. Its list spells brackets in upper case, so that "-lrb-" stays a word.
_DROPPED = frozenset(["''", "'", '"', "``", "`", ".", "?", "!", ",", ":", "-", ";", *"“”‘’‛‹›«»–—―…‐‑"])
_DROPPED_RUN = re.compile(r"-{1,4}|\.+")

# Abbreviations keep their full stop. Those of the second list are words as well, unless capitalised.
_ABBREVIATIONS = (
    "adj|adm|adv|al|ala|alex|apr|ariz|assn|assoc|asst|atty|aug|ave|bancorp|bhd|bldg|blvd|brig|bros|"
    "calif|capt|cf|cie|cmdr|co|col|colo|comdr|conn|corp|cos|cpl|ct|dak|dec|dept|det|dr|drs|elec|ens|"
    "esq|est|etc|ext|feb|fla|fri|ft|ga|gen|gov|govs|hon|inc|ind|insp|intl|invt|jan|jos|jr|jul|jun|kan|"
    "kans|ky|lieut|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mo|mon|mont|mr|mrs|ms|msgr|mt|mtg|"
    "natl|neb|nev|nov|oct|okla|penn|pfc|ph|plc|ppte|ppty|pres|prof|profs|pte|ptes|pty|ptys|pvt|rd|rep|"
    "reps|rev|rt|sen|sens|sep|sept|seq|sfc|sgt|spc|sq|sr|st|ste|supt|sys|tel|tenn|thu|thurs|treas|tue|"
    "tues|univ|va|vs|vt|wed|wis|wisc|wm|wyo"
)
_CAPITALISED_ABBREVIATIONS = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_BEFORE_NUMBERS = "art|ca|fig|no|nos|op|pp"  # abbreviations only where a number follows
# Two words written as one.
_TWO_WORDS = (("can", "not"), ("gon", "na"), ("got", "ta"), ("wan", "na"), ("lem", "me"), ("gim", "me"))

# The letters of the scripts that the tool knows, with their marks (the gaps are punctuation).
_LETTER = (
    "A-Za-zªµºÀ-ÖØ-öø-\u037d\u037f-\u0386\u0388-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7-\u05f2\u0610-\u061a"
    "\u0620-\u0669\u066e-\u06d3\u06d5-\u06ff\u070f-\u0963\u0966-\u0e3e\u0e40-\u0e4e\u0e50-\u1fff\u2c00-\u2fff"
    "\u3005-\u3007\u3021-\u30fa\u30fc-\ufdff\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc"
)
# Symbols that are words of their own. What is in neither class (emoji, control characters) is blank.
_SYMBOL = (
    "!-/:-@[-`{-~¡-©«¬®-´¶-¹»-¿×÷\u037e\u0387\u05be\u05c0\u05c3\u05c6\u060c\u061b\u061f\u066a\u06d4\u0964\u0965"
    "\u0e3f\u2010\u2011\u2013-\u2023\u2026\u2030-\u203b\u203e-\u2044\u2070-\u208e\u20a0\u20a4\u20ac\u2100-\u214f"
    "\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffe6"
)
_BLANKS = re.compile(f"[^0-9{_LETTER}{_SYMBOL}]+")

_L, _W = f"[{_LETTER}]", f"[{_LETTER}0-9]"
_THING = f"{_W}+(?:[-_‐‑֊]{_W}+)*"
_ASCII_THING = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_DOTTED = rf"{_L}{_W}*(?:[.?!]{_L}{_W}*)+"  # a missing blank joins two sentences: "a dog.the"
_ENDING = "(?:'(?i:[smd]|re|ve|ll)(?![A-Za-z])|’(?i:[smd]|re|ve|ll))"
_ABBREVIATION = (
    rf"(?:(?i:ph\.d|{_ABBREVIATIONS})|[A-Za-z](?:\.[A-Za-z])*|"
    rf"{'|'.join(f'{word[0]}(?i:{word[1:]})' for word in _CAPITALISED_ABBREVIATIONS.split('|'))})\."
)
_NUMBER = "(?:[0-9]*(?:[.,:][0-9]+)+|[0-9]+)"

# The kinds of word. Where a kind must see more than its word, that is the group; the rest counts as length.
_KINDS = tuple(
    re.compile(pattern)
    for pattern in (
        # Contractions: ca|n't, dog|'s, gon|na.
        "|".join(f"((?i:{first}))(?i:{second})(?!{_W})" for first, second in _TWO_WORDS),
        r"('[tT])(?i:is|was)",
        rf"({_THING}|{_DOTTED}|{_ABBREVIATION}|{_ASCII_THING}(?:/{_ASCII_THING}){{1,2}}|{_NUMBER}){_ENDING}",
        _ENDING,
        r"([A-Za-z]*?[A-Za-z])[nN]['’`][tT]",
        r"[nN]['’`][tT][A-Za-z]*",
        # Words with an apostrophe inside, in front or behind.
        rf"[A-HJ-XZdlno]['’]{_L}{{2,}}|{_L}+[aeiouyAEIOUY]['’][aeiouA-Z]{_L}*",
        r"(?i:cap'n|c'est|c'mon|cont'd\.|e'er|ev'ry|li'l|nat'l|nor'easter|o'o|s'mores)",
        r"['’](?i:n['’]|n(?![A-Za-z])|em|till?|cause|[2-9]0s|[0-9]{2}(?= |$))",
        r"(?i:[ldj]|ol|dunkin|somethin)['’]|[yY]['’](?=[A-Za-z])",
        # Words, with hyphens, dots, slashes.
        _THING,
        _DOTTED,
        rf"{_L}{_W}*(?:\.{_L}{_W}*)+(?:-{_W}+)+",
        rf"{_ABBREVIATION}(?:-{_THING})?",
        rf"((?i:{_BEFORE_NUMBERS})\.) *[0-9]",
        rf"((?:{_THING}|{_DOTTED})\.)[,;:]",
        rf"{_ASCII_THING}(?:/{_ASCII_THING}){{1,2}}",
        r"[A-Z]+(?:&[A-Z]+)+|[A-Z]\+[A-Z]|[cC]\+\+|[cCfF]#",
        # Numbers, fractions, dates, telephone numbers, currencies.
        rf"[-+]?{_NUMBER}",
        rf"[0-9]+(?:[.,][0-9]+)+{_W}*(?:-{_W}+)+",
        r"(?:[0-9]{1,4}[- ])?[0-9]{1,4}/[0-9]{1,4}",
        r"\([0-9]{3}\) ?[0-9]{3}[-. ][0-9]{4}",
        r"[A-Z]+\$",
        # Addresses, tags, signs.
        r"https?://[^ \"<>()]*[^ \"<>().,!?]|www\.[^ \"<>()]*[^ \"<>().,:;!?']",
        r"(?:[A-Za-z][A-Za-z0-9]*\.)+(?i:com|net|org|edu)(?:/[^ \"<>]*[^ \"<>.,;!?)])?",
        rf"<?[A-Za-z0-9][\w.+-]*@[^ \"<>()]*[^ \"<>().]>?|#{_L}+|@[A-Za-z_][A-Za-z0-9_]*",
        r"</?[A-Za-z][\w.:-]*(?: +[A-Za-z][\w:.-]*(?:=(?:\"[^\"]*\"|'[^']*'))?)* */?>|<[!?][^<>]*>",
        r"[<>]?[:;=]['o*-]?[()DPpOd|@{}\[\]\\](?![A-Za-z0-9])|\^_\^|-_-",
        r"&(?:lt|gt|quot|nbsp|apos);|&#[0-9]+;",
        r"-{2,}|_+|\*+|[?!]+|#+|@+|<<|>>|\.{3,}|``|''",
        r"\S",
    )
)

_REWRITTEN = {
    **{"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"£": "#", "€": "$", "₠": "$", "¤": "$", "¢": "cents"},
    **{"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{"&lt;": "<", "&gt;": ">", "&quot;": "", "&apos;": "", "&nbsp;": ""},
}
_CURLY_ENDING = re.compile("n’t|’(?:[smd]|re|ve|ll)")

_PLAIN_CAPTION = re.compile(r"([A-Za-z ]*)(?:(?<=[A-Za-z]{2})|(?<= ))\.? *")
# Within any caption: such words, with hyphens and 's, and lone marks. No other kind could be longer.
_PLAIN_WORD = re.compile(
    r"[A-Za-z]+(?:-[A-Za-z]+)*(?=(?:'s|,)?(?: |$))|[A-Za-z]{2,}(?=\.$)|[.,;!?\"&](?= |$)|'s(?= |$)"
)
_SPECIAL = frozenset(
    ["".join(word) for word in _TWO_WORDS] + _ABBREVIATIONS.split("|") + _CAPITALISED_ABBREVIATIONS.lower().split("|")
)


def tokenise(caption: str) -> list[str]:
    """The words of one caption. White space and control characters of any kind only separate words."""
    plain = _PLAIN_CAPTION.fullmatch(caption)
    if plain:  # nine captions in ten: letters, blanks, and a full stop at the end
        words = plain[1].lower().split()
        if _SPECIAL.isdisjoint(words):
            return words
    return _tokenise_any(_BLANKS.sub(" ", caption.replace("\u00ad", "").replace("&amp;", "&")).strip())


def _tokenise_any(caption: str) -> list[str]:
    words: list[str] = []
    place, end = 0, len(caption)
    while place < end:
        if caption[place] == " ":
            place += 1
            continue
        match = _PLAIN_WORD.match(caption, place)
        if match is None or match[0].lower() in _SPECIAL:
            match = max((kind.match(caption, place) for kind in _KINDS), key=_length)
            assert match
        word = match[match.lastindex or 0]
        place += len(word)
        words += _written(word.lower())
    return words


def _length(match: re.Match[str] | None) -> int:
    return match.end() if match else -1


def _written(word: str) -> list[str]:
    """What a found word becomes: nothing, one word, or (a fraction, a telephone number) two."""
    if word in _DROPPED or _DROPPED_RUN.fullmatch(word):
        return []
    if "(" in word or ")" in word:
        word = word.replace("(", "-lrb-").replace(")", "-rrb-")
    if "’" in word and _CURLY_ENDING.fullmatch(word):
        word = word.replace("’", "'")
    return _REWRITTEN.get(word, word).split()
