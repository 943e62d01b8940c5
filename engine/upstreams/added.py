"""Checkpoints of one's own, as they were added by their paths. Their names say who opens them."""

from engine import hub
from engine.upstream import Family

FAMILY = Family(cards=hub.added)
