// jayson's TCP client, unmodified: a connection a call, a batch, a notification. Usage: PORT.
import { createRequire } from "node:module";
const require = createRequire(process.env.LLMD_NODE_MODULES + "/");
const jayson = require("jayson/promise");

const client = jayson.Client.tcp({ host: "127.0.0.1", port: Number(process.argv[2]) });
const done = await client.request("execute", { model: "echo/echo", prompt: "hello there" });
const batch = await client.request([
  client.request("ping", {}, undefined, false),
  client.request("execute", { model: "echo/echo", prompt: "in a batch" }, undefined, false),
]);
const wrong = await client.request("fly", {});
console.log(JSON.stringify([done.result.text, batch.map((one) => one.result.text ?? "pong"), wrong.error.code]));
process.exit(0);
