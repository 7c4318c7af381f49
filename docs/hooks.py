"""What the site has beyond the files in docs/: pages from elsewhere, and anchors as on GitHub."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[1]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "recipes/README.md", "recipes/**/*.yml")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that GitHub gives them, which keep letters such as λ."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages and recipes that are outside of docs/, by the paths that links name them by."""
    for path in sorted(path for pattern in OUTSIDE for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        file = File.generated(
            config, f"../{name}", abs_src_path=str(path), inclusion=InclusionLevel.INCLUDED
        )
        if file.is_documentation_page():
            file.name = name  # README is no index of the section that it is in
            file.dest_uri = name.replace("README", "index").replace(".md", ".html").lower()
        else:
            file.dest_uri = name
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of these pages into docs/ start there."""
    if page.file.src_uri.startswith("../"):
        return re.sub(r"\]\((?:\.\./)*docs/", "](/", markdown)
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark what site.css lays out: cells with sentences, and code that must stay in one line."""
    if not any(title.children for title in page.toc):
        page.meta["hide"] = ["toc"]  # an empty one would take room from tables

    def marked(cell: re.Match[str]) -> str:
        is_long = len(re.sub("<[^>]*>", "", cell[1])) > 90
        return f'<td class="sentence">{cell[1]}</td>' if is_long else cell[0]

    html = re.sub("<td>(.*)</td>", marked, html)
    return re.sub("<code>([^<]{1,30})</code>", r'<code class="short">\1</code>', html)
