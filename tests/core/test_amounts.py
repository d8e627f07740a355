"""What a request posts, unit by unit."""

from llmd.chat import Usage
from llmd.core.amounts import Amounts, spent


def test_one_request_posts_its_tokens_itself_and_its_money() -> None:
    usage = Usage(input_tokens=5, output_tokens=2, total_tokens=7, cache_read_tokens=4, reasoning_tokens=1)
    assert spent(usage, 30) == Amounts(total_tokens=7, input_tokens=5, output_tokens=2, requests=1, nano_usd=30)


def test_an_unknown_price_posts_no_money_but_the_request() -> None:
    assert spent(Usage(), None) == Amounts(requests=1)
