"""python-lsp-jsonrpc, unmodified: Content-Length frames, as a language client sends them. Usage: SOCKET."""

import json
import socket
import sys
import threading

from pylsp_jsonrpc.endpoint import Endpoint
from pylsp_jsonrpc.exceptions import JsonRpcException
from pylsp_jsonrpc.streams import JsonRpcStreamReader, JsonRpcStreamWriter

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
reader = JsonRpcStreamReader(connection.makefile("rb"))
writer = JsonRpcStreamWriter(connection.makefile("wb"))
deltas = []
ids = []
endpoint = Endpoint({"llmd.delta": deltas.append}, writer.write, id_generator=lambda: ids.append(len(ids)) or ids[-1])
threading.Thread(target=reader.listen, args=(endpoint.consume,), daemon=True).start()
done = endpoint.request("execute", {"model": "echo/echo", "prompt": "hello there", "stream": "s"}).result(20)
codes = []
stuck = endpoint.request("execute", {"model": "held/m", "prompt": "x"})
# Its futures can be cancelled, but then it fails at the answer: so the notification alone.
endpoint.notify("$/cancelRequest", {"id": ids[-1]})
for waiting in (stuck, endpoint.request("fly")):
    try:
        waiting.result(20)
    except JsonRpcException as error:
        codes.append(error.code)
ping = endpoint.request("ping").result(20)
print(json.dumps([done["text"], "".join(delta["text"] for delta in deltas), codes, ping]))
connection.shutdown(socket.SHUT_RDWR)
