/* `m3ret` as a person starts it. */

import { spawn } from "node:child_process";
import { once } from "node:events";

/** Runs the program to its end. */
export async function runProgram(words) {
  const child = spawn(process.env.M3RET_PROGRAM, words, { stdio: ["ignore", "ignore", "pipe"] });
  let told = "";
  child.stderr.on("data", (some) => { told += some; });
  const [status] = await once(child, "exit");
  if (status !== 0) throw new Error(`m3ret ${words.join(" ")}: status ${status}\n${told}`);
}

/** Serves on a free port; `address` has the token. */
export async function startServer(words) {
  const child = spawn(process.env.M3RET_PROGRAM, ["serve", "--listen", "127.0.0.1:0", ...words], { stdio: ["ignore", "pipe", "pipe"] });
  let told = "", log = "";
  child.stderr.on("data", (some) => { log += some; });
  const address = await new Promise((then, not) => {
    child.stdout.on("data", (some) => { told += some; if (told.includes("\n")) then(told.split("\n")[0].trim()); });
    child.on("exit", (status) => not(new Error(`m3ret serve ended with status ${status}\n${log}`)));
  });
  return {
    address, origin: new URL(address).origin,
    async end() { if (child.exitCode === null) { child.kill("SIGTERM"); await once(child, "exit"); } },
  };
}
