// ethers' IpcSocketProvider, unmodified: no newline behind a message. Usage: SOCKET.
import { createRequire } from "node:module";
const require = createRequire(process.env.LLMD_NODE_MODULES + "/");
const { IpcSocketProvider, Network } = require("ethers");

const network = Network.from(1);
const provider = new IpcSocketProvider(process.argv[2], network, { staticNetwork: network });
provider.on("error", () => {});
const ping = await provider.send("ping", {});
const texts = await Promise.all(
  Array.from({ length: 10 }, (_, n) => provider.send("execute", { model: "echo/echo", prompt: `p${n}` })),
);
console.log(JSON.stringify([ping, texts.map((one) => one.text).join(" ")]));
process.exit(0);
