"""Making the database match a configuration file, in one transaction, or telling what that would change."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import connection, transaction

from gateway.configuration.changes import Outcome
from gateway.configuration.document import Document, read
from gateway.configuration.problems import ConfigurationError
from gateway.configuration.prune import Prune, forgotten
from gateway.configuration.references import check_references
from gateway.configuration.routing_sections import apply_deployment, apply_model_group, apply_provider
from gateway.configuration.run import Run
from gateway.configuration.schema import Configuration, check
from gateway.configuration.tenant_sections import apply_exchange_rate, apply_organization, apply_plan

# One apply at a time: a number of PostgreSQL's advisory locks, with no meaning of its own.
LOCK = 0x57_65_69_72


def load(text: str, file: str, environment: Mapping[str, str]) -> tuple[Configuration, Document]:
    """The configuration in ``text``. ``file`` is its name in messages, ``environment`` fills ``${NAME}``.

    Raises ``ConfigurationError`` with everything that is wrong with the file by itself.
    """
    document, problems = read(text, file, environment)
    # An empty section is one without objects.
    document.values = {name: value for name, value in document.values.items() if value is not None}
    configuration, more = check(document)
    said = {(problem.line, problem.field) for problem in problems}
    problems += [problem for problem in more if (problem.line, problem.field) not in said]
    if problems or configuration is None:
        raise ConfigurationError(problems)
    return configuration, document


@transaction.atomic
def apply_configuration(
    configuration: Configuration,
    document: Document,
    *,
    prune: bool = False,
    plan: bool = False,
    remember: bool = True,
) -> Outcome:
    """Make the database match, and return what changed.

    ``plan`` does the same and takes everything back, so what it shows is what would happen; it returns
    no secrets. ``prune`` removes what an earlier run made and the file no longer names. ``remember``
    False makes objects that no prune will touch. Raises ``ConfigurationError``, and then nothing is changed.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    if problems := check_references(configuration, document):
        raise ConfigurationError(problems)
    run = Run(document, remember=remember)
    _match(run, configuration)
    if prune:
        Prune(run).all()
    else:
        _count_forgotten(run)
    if run.problems:
        raise ConfigurationError(run.problems)
    if plan:
        transaction.set_rollback(True)
        run.outcome.made.clear()
    return run.outcome


def _match(run: Run, configuration: Configuration) -> None:
    for index, rate in enumerate(configuration.exchange_rates):
        apply_exchange_rate(run, rate, ("exchange_rates", index))
    for index, provider in enumerate(configuration.providers):
        apply_provider(run, provider, ("providers", index))
    if run.problems:
        # What stands on them would only repeat the problem.
        return
    for index, deployment in enumerate(configuration.deployments):
        apply_deployment(run, deployment, ("deployments", index))
    if run.problems:
        return
    for index, group in enumerate(configuration.model_groups):
        apply_model_group(run, group, ("model_groups", index))
    for index, plan in enumerate(configuration.plans):
        apply_plan(run, plan, ("plans", index))
    if run.problems:
        return
    for index, organization in enumerate(configuration.organizations):
        apply_organization(run, organization, ("organizations", index))


def _count_forgotten(run: Run) -> None:
    count = sum(len(rows) for rows in forgotten(run).values())
    if count:
        what = "object" if count == 1 else "objects"
        run.outcome.notes.append(
            f"{count} {what} of an earlier apply {'is' if count == 1 else 'are'} no longer named; "
            "--prune removes what is not named, --plan --prune shows it first."
        )
