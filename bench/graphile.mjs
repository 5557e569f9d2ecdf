// graphile.mjs - graphile-worker, for bench/run: its best batched mode, as its own documentation and
// benchmark have it (local queue of 500, batched completion without delay).
//
//   node graphile.mjs FOLDER migrate
//   node graphile.mjs FOLDER trivial|webhook|command PROCESSES CONCURRENCY [URL or TASK-FOLDER]
//
// FOLDER holds its node_modules. The database comes from PGHOST, PGUSER and PGDATABASE. Works until
// it is ended with TERM. With more than one process the first only starts the others.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";

const [folder, mode, processes, concurrency, where] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { run, runMigrations, Logger } = require("graphile-worker");
const pg = require("pg");

const quiet = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});

async function post(payload) {
  const answer = await fetch(where, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(payload),
  });
  await answer.arrayBuffer();
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
}

async function work() {
  const pgPool = new pg.Pool({ max: 12 });
  pgPool.on("error", (error) => console.error(error.message));
  pgPool.on("connect", (client) => client.on("error", () => {}));
  const runner = await run({
    pgPool,
    logger: quiet,
    concurrency: Number(concurrency),
    noHandleSignals: true,
    ...(mode === "command"
      ? { taskDirectory: where }
      : { taskList: { bench: mode === "webhook" ? post : () => {} } }),
    preset: {
      worker: {
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  process.on("SIGTERM", () => process.exit(0));
  await runner.promise;
}

if (mode === "migrate") {
  await runMigrations({ pgPool: new pg.Pool({ max: 2 }), logger: quiet });
  process.exit(0);
} else if (Number(processes) > 1) {
  const args = [process.argv[1], folder, mode, "1", concurrency, ...(where ? [where] : [])];
  const children = Array.from({ length: Number(processes) }, () =>
    spawn(process.execPath, args, { stdio: "inherit" }),
  );
  process.on("SIGTERM", () => {
    for (const child of children) child.kill();
    process.exit(0);
  });
} else {
  await work();
}
