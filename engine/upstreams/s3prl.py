"""Checkpoints that S3PRL wrote: `s3prl:FILE`, and those that it publishes by name."""

from functools import partial

from engine import checkpoint
from engine.upstream import Family

FAMILY = Family(cards=partial(checkpoint.published, "s3prl"), prefix="s3prl", find=partial(checkpoint.find, "s3prl"))
