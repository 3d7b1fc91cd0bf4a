"""How easy the pages are to read: Flesch reading ease, words per sentence, and minutes.

python docs/scripts/readability.py [PAGES ...]

The first two are of prose: paragraphs, lists and notes, without code, tables, formulas, headings, captions and inline
code. Syllables are groups of vowels, without a silent e. The minutes are those of all words of a page but its code
blocks, at 230 words a minute.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS_A_MINUTE = 230
CODE = r"(?ms)^ *```.*?^ *```|<!--.*?-->|^ *\$\$.*?\$\$"
NOT_PROSE = r"(?ms)<figure.*?</figure>|^#+ [^\n]*|^ *\|[^\n]*|^ *[!?]{3}[^\n]*"
SHOWN = {
    r"\[!\[.*?\]\(.*?\)\]\(.*?\)|!\[[^\]]*\]\([^)]*\)(\{[^}]*\})?": "",  # images
    r"`[^`]+`|\$[^$]+\$|<https?:[^>]*>": "",  # inline code, formulas and addresses
    r"\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])": r"\1",  # links
    r"</?[a-z][^>]*>|\*\*": "",
}


def shown(text: str) -> str:
    """The words that a browser shows of Markdown that has no code blocks."""
    for pattern, replacement in SHOWN.items():
        text = re.sub(pattern, replacement, text)
    return text


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence of prose. A paragraph and an item of a list end a sentence, too."""
    prose = shown(re.sub(NOT_PROSE, "\n\n", re.sub(CODE, "\n\n", text)))
    parts = re.split(r"\n\s*\n|\n *(?:[-*]|\d+\.) |(?<=[.!?])\s+", prose)
    return [words for part in parts if (words := re.findall(r"[A-Za-z][A-Za-z'-]*", part))]


def syllables(word: str) -> int:
    """Groups of vowels. "e", "es" and "ed" at the end of a word are silent after most consonants."""
    silent = r"(?<=[^aeiouyltd])ed?$|(?<=[^aeiouylcghsxz])es$|(?<=[aeiouytd])e$"
    return max(1, len(re.findall("[aeiouy]+", re.sub(silent, "", word.lower()))))


def measured(text: str) -> tuple[float, float, float]:
    """Reading ease, words per sentence, and minutes of a page."""
    said = sentences(text)
    words = [word for sentence in said for word in sentence]
    length = len(words) / len(said)
    ease = 206.835 - 1.015 * length - 84.6 * sum(map(syllables, words)) / len(words)
    return ease, length, len(re.findall(r"\w[\w'-]*", shown(re.sub(CODE, "", text)))) / WORDS_A_MINUTE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pages",
        nargs="*",
        type=Path,
        default=[ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/benchmarks/*.md"))],
    )
    for page in parser.parse_args().pages:
        print("{:15} ease {:5.1f}   words per sentence {:4.1f}   minutes {:4.1f}".format(
            page.name, *measured(page.read_text(encoding="utf-8"))
        ))  # fmt: skip
