"""The budgets that a configuration names: their terms, and what of them a running daemon cannot change."""

from collections.abc import Mapping

from llmd.core.budget import Budget, Terms
from llmd.settings import BudgetSettings


class Roots:
    """What is `configured`, by name, and what follows for a call that names no budget.

    default   the name of the one that it is in
    required  whether it is refused
    """

    def __init__(self, configured: Mapping[str, BudgetSettings]) -> None:
        self.configured = configured
        self.default = next((name for name, settings in configured.items() if settings.default), None)
        self.required = any(settings.require for settings in configured.values())


def terms_of(settings: BudgetSettings) -> Terms:
    return Terms(
        limits=settings.limits.by_unit(),
        window=settings.window,
        zone=settings.timezone,
        label=settings.label,
        enforcement=settings.enforcement,
        allow=settings.allow,
        configured=True,
    )


def counts_otherwise(terms: Terms, settings: BudgetSettings) -> bool:
    """Whether what was counted by the one says nothing of the other."""
    return (terms.window, terms.zone) != (settings.window, settings.timezone)


def problems(budgets: Mapping[str, Budget], configured: Mapping[str, BudgetSettings]) -> list[str]:
    """What of this configuration cannot be had while these budgets are there."""
    return [
        f"budgets.{name}.window: a budget keeps its window while the daemon runs: restart it, or use another name"
        for name, settings in configured.items()
        if (budget := budgets.get(name)) is not None and counts_otherwise(budget.terms, settings)
    ]
