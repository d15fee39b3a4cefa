"""Settings of Sphinx: `make docs`."""

from dms_mmrazor.version import __version__

project = 'dms_mmrazor'
author = 'the dms_mmrazor authors'
release = version = __version__

extensions = [
    'myst_parser',  # pages in Markdown
    'sphinx.ext.autodoc',  # the API from docstrings
    'sphinx.ext.napoleon',  # which are in Google's style
]
myst_enable_extensions = ['deflist', 'dollarmath']
myst_heading_anchors = 3
exclude_patterns = ['_build']
# The GroupFisher diff and shell lines with `CONFIG` are shown as they are.
suppress_warnings = ['misc.highlighting_failure']

autodoc_typehints = 'none'
autodoc_member_order = 'bysource'
napoleon_use_rtype = False

html_theme = 'furo'
html_title = f'dms_mmrazor {version}'
