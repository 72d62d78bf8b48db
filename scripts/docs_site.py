"""Adapt the repository to the documentation site: a hook of mkdocs, used by `make docs`.

Put the pages that lie at the root of the repository into the site, and point links to them.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent

# A page at the root of the repository, and its name in the site.
_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "RELEASE.md": "release.md",
    "SECURITY.md": "security-policy.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root to the files of the site."""
    from mkdocs.structure.files import File

    for source, name in _PAGES.items():
        text = (_ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page's text with its links as the site needs them."""
    return with_site_links(markdown, page.file.src_uri)


def with_site_links(markdown: str, page: str) -> str:
    """Return `markdown` with links that work in the site.

    A link to a page of the site is made relative to `page`. A link to another file of the
    repository becomes plain text, because that file is not in the site.

    Args:
        markdown: the text as it is in the repository.
        page: the name of the page in the site, for example `decisions/README.md`.
    """
    sources = {name: source for source, name in _PAGES.items()}
    in_repository = PurePosixPath(sources.get(page, f"docs/{page}")).parent

    def replaced(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = normpath(str(in_repository / target))
        if (_ROOT / path).is_dir() and (_ROOT / path / "README.md").is_file():
            path += "/README.md"
        if path in _PAGES:
            return f"[{text}]({relpath(_PAGES[path], _parent(page))}{anchor})"
        if path.startswith("docs/") and not (_ROOT / path).is_dir():
            return f"[{text}]({relpath(path.removeprefix('docs/'), _parent(page))}{anchor})"
        return match[0] if not (_ROOT / path).exists() else text

    return _LINK.sub(replaced, markdown)


def _parent(page: str) -> str:
    return str(PurePosixPath(page).parent)
