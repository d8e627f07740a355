// viem's IPC transport, unmodified: no newline behind a message. Usage: SOCKET.
import { createRequire } from "node:module";

const require = createRequire(process.env.LLMD_NODE_MODULES + "/");
const { ipc } = require("viem/node");

const transport = ipc(process.argv[2], { retryCount: 0 })({});
const ping = await transport.request({ method: "ping", params: {} });
const done = await transport.request({ method: "execute", params: { model: "echo/echo", prompt: "hello there" } });
const wrong = await transport.request({ method: "fly", params: {} }).then(() => null, (error) => error.code);
console.log(JSON.stringify([ping, done.text, wrong]));
process.exit(0);
