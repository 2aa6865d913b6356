"""Every rule that money is refused by is documented, and there are no others in the documentation."""

import re

from tests.docs.refusals import paywall_slugs, refusal_rules
from tests.docs.support import first_codes, page

RULES = "## Purchases, payments and mandates that are refused"
SLUGS = "### What a paywall answers"


def codes_of(name: str, title: str) -> set[str]:
    """Returns the first cells' codes of one section."""
    _, found, after = page(name).partition(f"{title}\n")
    assert found, f"docs/{name} has no section {title}"
    level = title.split(" ")[0]
    return first_codes(re.split(rf"^#{{2,{len(level)}}} ", after, flags=re.MULTILINE)[0])


def test_the_rules_are_found_however_they_are_stated() -> None:
    assert {
        "internal_error",  # where it is raised
        "items_added",  # returned by a check
        "seller_unavailable",  # in a table of kinds
        "no_processor",  # as the code of a failed activity
        "mandate_expired",  # with a status
        "AllowanceClosed",  # as the type of a refused update
        "payment_made_elsewhere",  # by a constant
        "request_too_large",
        "request_invalid",
    } <= refusal_rules()
    assert {"payment-required", "delivery-pending"} <= paywall_slugs()


def test_the_rules_are_those_that_are_documented() -> None:
    assert codes_of("errors.md", RULES) == refusal_rules()


def test_what_a_paywall_answers_is_documented() -> None:
    assert codes_of("paid-requests.md", SLUGS) == paywall_slugs()
