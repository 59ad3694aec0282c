"""English text that every Python brings along: the topics of its help, as sentences of words."""

from __future__ import annotations

import re
from collections import Counter
from pydoc_data.topics import topics

UNKNOWN = "?"


def sentences() -> list[list[str]]:
    """Words and punctuation as written."""
    text = " ".join(topics[name] for name in sorted(topics))
    parts = re.split(r"(?<=[.!?:])\s+", text)
    return [words for words in (re.findall(r"[A-Za-z]+|[^\sA-Za-z]", part) for part in parts) if words]


def vocabulary(words: list[str], size: int) -> dict[str, int]:
    """The most frequent words -> numbers from 1; 0 is for all others."""
    return {UNKNOWN: 0} | {word: i + 1 for i, (word, _) in enumerate(Counter(words).most_common(size - 1))}
