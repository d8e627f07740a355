"""web3.py's IPCProvider, unmodified: it sends no newline behind a message. Usage: SOCKET."""

import json
import sys

from web3 import IPCProvider

provider = IPCProvider(sys.argv[1], timeout=20)
pings = [provider.make_request("ping", []) for _ in range(3)]
done = provider.make_request("execute", {"model": "echo/echo", "prompt": "hello there"})
wrong = provider.make_request("execute", {"promt": "x"})
print(json.dumps([*(ping["result"] for ping in pings), done["result"]["text"], wrong["error"]["code"]]))
