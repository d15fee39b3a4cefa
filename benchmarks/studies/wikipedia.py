"""Real text for the studies of language models, without a download.

The package gensim (``pip install -r requirements/benchmarks.txt``) brings 107
articles of the English Wikipedia as test data, and the code that cleans their
markup. This writes each of them into a file of its own:

    python benchmarks/studies/wikipedia.py work_dirs/wikipedia

About 3 million characters. Whole articles are held out by
:class:`TokenWindows`.
"""

import argparse
import bz2
import os.path as osp
import re
from typing import Iterator

from dms_mmrazor.files import write_text

ARTICLES = 'enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened'


def articles() -> Iterator[str]:
    """Plain texts, in the order of the dump; redirects are left out."""
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki
    from gensim.test.utils import datapath

    with bz2.open(datapath(f'{ARTICLES}.bz2')) as file:
        for title, markup, _ in extract_pages(file, ('0',)):
            if markup.lstrip().lower().startswith('#redirect'):
                continue
            text = filter_wiki(markup, promote_remaining=True)
            # What is left of headings, lists and removed tables.
            text = re.sub(r"'{2,}|={2,}|^[*#:;]+ *", '', text, flags=re.M)
            text = re.sub(r'\s*\n\s*', '\n', text).strip()
            yield f'{title}\n{text}\n'


def main() -> None:
    """Write the articles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder')
    args = parser.parse_args()
    number = characters = 0
    for number, text in enumerate(articles(), 1):
        write_text(osp.join(args.folder, f'{number:03d}.txt'), text)
        characters += len(text)
    print(f'{number} articles, {characters:,} characters: {args.folder}')


if __name__ == '__main__':
    main()
