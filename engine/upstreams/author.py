"""Checkpoints as their authors wrote them: `author:FILE`, told apart by what they hold, and published ones by name."""

from functools import partial

from engine import checkpoint
from engine.upstream import Family

FAMILY = Family(cards=partial(checkpoint.published, "author"), prefix="author", find=partial(checkpoint.find, "author"))
