"""What the pages of `inspect` and `tune` share: how they look, their plots, and short names.

- `extra`: whether what pages need is installed.
- `names`: short names of models.
- `plots`: figures of one style, in light and dark.
- `page`: fills a template, and embeds the plots.

`page.html.jinja` is the frame that every page's own template extends, and `macros.html.jinja` has
the parts that several pages have.
"""
