"""Google docstrings taken apart and put into Markdown."""

import inspect
import re
import textwrap
from dataclasses import dataclass, field

#: Titles of sections, as they stand in this project's docstrings.
TITLES = ('Args', 'Attributes', 'Class attributes', 'Raises', 'Returns', 'Source', 'Example')


@dataclass
class Docstring:
    """A docstring's parts, in Markdown.

    Attributes:
        text: Paragraphs before and between the sections.
        arguments: What ``Args`` (of a dataclass: ``Attributes``) says, by name.
        sections: The other sections' texts, by title.
        example: Lines of code, prompts included.
    """

    text: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)
    example: str = ''


def parse(doc: str | None) -> Docstring:
    """Take a docstring apart."""
    result = Docstring()
    for block in re.split(r'\n(?=\S)(?<=\n\n)', inspect.cleandoc(doc or '') + '\n'):
        title, _, rest = block.partition(':')
        if title not in TITLES:
            result.text += [paragraph(p) for p in re.split(r'\n\s*\n', block.strip('\n')) if p]
        elif title in ('Args', 'Attributes'):
            result.arguments |= items(rest)
        elif title == 'Example':
            result.example = textwrap.dedent(rest.lstrip(':').strip('\n'))
        else:
            result.sections[title] = plain(rest)
    return result


def items(text: str) -> dict[str, str]:
    """``name: meaning`` entries; lines that go on are indented further."""
    found = re.split(r'^\**(\w+): ', textwrap.dedent(text.strip('\n')), flags=re.MULTILINE)
    return {name: plain(meaning) for name, meaning in zip(found[1::2], found[2::2], strict=True)}


def paragraph(text: str) -> str:
    """A paragraph; indented lines stay code, and lists lists."""
    if all(line.startswith('    ') for line in text.splitlines()):
        return f'```text\n{textwrap.dedent(text)}\n```'
    if text.startswith('- '):
        return '\n'.join(f'- {plain(item)}' for item in re.split(r'^- ', text, flags=re.M)[1:])
    return plain(text)


def plain(text: str) -> str:
    """One line of Markdown: roles and double backticks become code."""
    text = re.sub(r':(?:class|func|meth|mod|attr):`~?\.?([^`]+)`', r'`\1`', ' '.join(text.split()))
    return text.replace('``', '`')
