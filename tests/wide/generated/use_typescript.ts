// Uses a client that @hey-api/openapi-ts generated, in ./client. As use_python.py; batches are a
// Bundle, because that generator takes one of the content types.
import * as fs from "node:fs";
import { createClient } from "./client/client/index.js";
import { listBatchLines, listUploads, getUpload, readFhir, submitBatch, submitUpload } from "./client/sdk.gen.js";
import type { Resource } from "./client/types.gen.js";

const [url, key, user, folder] = process.argv.slice(2) as [string, string, string, string];
const client = createClient({ baseUrl: url, auth: () => key });
const throwOnError = true as const;

const load = (version: string): Resource => JSON.parse(fs.readFileSync(`${folder}/${version}.json`, "utf8"));

async function wait(upload_id: string): Promise<string> {
  for (;;) {
    const { data } = await getUpload({ client, throwOnError, path: { upload_id }, query: { wait: 30 } });
    if (data.final) return data.status;
  }
}

const read: Record<string, unknown> = {};
const statuses: string[] = [];
for (const version of ["R4", "DSTU2"]) {
  const resource = load(version);
  const { data: upload } = await submitUpload({
    client,
    throwOnError,
    body: { user, fhirVersion: version, resource },
    headers: { "Idempotency-Key": `typescript-${version}` },
  });
  statuses.push(await wait(upload.id));
  const path = { user, version, type: String(resource["resourceType"]), id: String(resource["id"]) };
  read[version] = (await readFhir({ client, throwOnError, path })).data;
}

const entry = fs
  .readFileSync(`${folder}/batch.ndjson`, "utf8")
  .trim()
  .split("\n")
  .map((line) => ({ resource: JSON.parse(line) as Resource }));
const { data: batch } = await submitBatch({
  client,
  throwOnError,
  body: { resourceType: "Bundle", type: "collection", entry },
  query: { user, fhirVersion: "R4" },
});
for (const line of batch.lines) if (line.id) statuses.push(await wait(line.id));
const { data: listed } = await listBatchLines({ client, throwOnError, path: { batch_id: batch.id } });

const pages: number[] = [];
let after: string | undefined;
for (;;) {
  const { data: page } = await listUploads({
    client,
    throwOnError,
    query: after ? { user, limit: 2, after } : { user, limit: 2 },
  });
  pages.push(page.uploads.length);
  if (page.next === null) break;
  after = page.uploads.at(-1)!.id;
}
console.log(JSON.stringify({ read, statuses, pages, lines: listed.lines.length }));
