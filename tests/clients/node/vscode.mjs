// vscode-jsonrpc, unmodified: header and body written apart, cancellation tokens. Usage: SOCKET.
import net from "node:net";
import { createRequire } from "node:module";
const require = createRequire(process.env.LLMD_NODE_MODULES + "/");
const rpc = require("vscode-jsonrpc/node");

const socket = net.connect(process.argv[2]);
const connection = rpc.createMessageConnection(new rpc.SocketMessageReader(socket), new rpc.SocketMessageWriter(socket));
const deltas = [];
connection.onNotification("llmd.delta", (params) => deltas.push(params.text));
connection.listen();
const done = await connection.sendRequest("execute", { model: "echo/echo", prompt: "hello there", stream: "s" });
const source = new rpc.CancellationTokenSource();
const stuck = connection.sendRequest("execute", { model: "held/m", prompt: "x" }, source.token);
const cancelled = stuck.then(() => null, (error) => error.code);
await connection.sendRequest("ping", {});
source.cancel();
const many = await Promise.all(
  Array.from({ length: 20 }, (_, n) => connection.sendRequest("execute", { model: "echo/echo", prompt: `p${n}` })),
);
const wrong = await connection.sendRequest("fly", {}).then(() => null, (error) => error.code);
console.log(JSON.stringify([done.text, deltas.join(""), await cancelled, many.map((one) => one.text).join(" "), wrong]));
connection.dispose();
socket.destroy();
