"""Dead letters: what was refused and why, tried again or given up with a reason."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from billing.models import DeadLetter
from billing.services.dead_letters import (
    DeadLetterError,
    NoReason,
    discard_letter,
    record_of,
    retry_letter,
    shown,
)
from gateway.console.lists import place, words
from gateway.operators.access import OperatorRequest, operators_only
from tenants.models import Organization

PAGE = 50


def found(request: OperatorRequest) -> QuerySet[DeadLetter]:
    """The dead letters that the address asks for, the newest first."""
    search, every = words(request), DeadLetter.objects.order_by("-pk")
    if search:
        # The record itself is searched, and never shown.
        every = every.filter(reason__icontains=search) | every.filter(record__contains=search)
    return every


@operators_only
def letters(request: OperatorRequest) -> HttpResponse:
    """``/operator/dead-letters/``: newest first, searched by reason or request id."""
    search, before = words(request), place(request, "before")
    rows = found(request)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    page = list(rows[: PAGE + 1])
    return render(
        request,
        "operators/dead_letters/list.html",
        {
            "letters": [(each, shown(each)) for each in page[:PAGE]],
            "search": search,
            "csv": f"{reverse('operator:dead_letters_csv')}?{urlencode({'q': search} if search else {})}",
            "before": before or "",
            "older": page[PAGE - 1].pk if len(page) > PAGE else None,
        },
    )


@operators_only
def letter_detail(request: OperatorRequest, letter: int) -> HttpResponse:
    """``/operator/dead-letters/<number>/``. POST ``do=retry``, or ``do=discard`` with a ``reason``."""
    found = get_object_or_404(DeadLetter, pk=letter)
    problem = ""
    if request.method == "POST":
        try:
            if request.POST.get("do") == "retry":
                made = retry_letter(acting_user=request.user, letter=found)
                messages.success(
                    request,
                    "The request is in the books now."
                    if made
                    else "The request was in the books already; the letter is gone.",
                )
            elif request.POST.get("do") == "discard":
                discard_letter(acting_user=request.user, letter=found, reason=request.POST.get("reason", ""))
                messages.success(request, "The record is given up; the audit log says why.")
            else:
                return redirect("operator:dead_letter", letter=letter)
            return redirect("operator:dead_letters")
        except NoReason as error:
            problem = str(error)
        except DeadLetterError as error:
            messages.error(request, str(error))
            return redirect("operator:dead_letter", letter=letter)
    record = record_of(found)
    facts = shown(found)
    organization = Organization.objects.filter(pk=facts.get("organization_id") or 0).first()
    return render(
        request,
        "operators/dead_letters/detail.html",
        {
            "letter": found,
            "facts": facts,
            "tenant": organization,
            "size": len(found.record.encode()),
            "retryable": record is not None and record.get("t") == "end",
            "problem": problem,
        },
        status=422 if problem else 200,
    )
