"""Stories: the layers of a step in the terms of the textbook, with numbers. A file a family."""

from chainrule.explanation.stories.story import Story, Term, View

__all__ = ["Story", "Term", "View"]
