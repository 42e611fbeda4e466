"""README.md as the description of a package: a page of an index shows it without the repository, to which its relative
links lead."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def description(readme: str, repository: str) -> str:
    """README with links into the repository; a page shows only raw files as pictures."""
    readme = re.sub(r"!(\[[^\]]*)" + LINK.pattern, rf"!\1]({repository}/raw/main/\2)", readme)
    return LINK.sub(rf"]({repository}/blob/main/\1)", readme)


urls = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
setup(
    long_description=description(Path("README.md").read_text(encoding="utf-8"), urls["Repository"]),
    long_description_content_type="text/markdown",
)
