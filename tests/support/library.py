"""What tests of the library and the clients configure."""

M1 = """
[providers.work]
base_url = "{url}"
overhead_tokens = 64
[providers.work.models.m1]
price = {{ input = 1.0, output = 2.0 }}
context_tokens = 4096
"""
"""A provider `work` at `url` with one model, m1."""
