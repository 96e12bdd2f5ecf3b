// The client against a running Uplift: UPLIFT_API_URL, UPLIFT_API_KEY, UPLIFT_USER.
// UPLIFT_CLIENT is the address of the built index.js.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { before, test } from "node:test";

const { ProblemError, Uplift } = await import(process.env.UPLIFT_CLIENT);
const url = process.env.UPLIFT_API_URL;
const uplift = new Uplift(url, process.env.UPLIFT_API_KEY);
const user = process.env.UPLIFT_USER;
const SECONDS = 60;

const resource = (id = randomUUID(), more = "") =>
  `{ "resourceType": "Observation",\n "id": "${id}", "status": "final"${more}, "code": {"text": "Pulse"},` +
  ` "valueQuantity": {"value": 72.50, "unit": "/min"} }`;

const all = async (items) => {
  const found = [];
  for await (const each of items) found.push(each);
  return found;
};

before(() => uplift.addUser(user));

test("a record arrives, and is read back", async () => {
  const labels = { fhirVersion: "R4", user, idempotencyKey: "k" };
  const first = await uplift.submit(resource("sent-by-typescript"), labels);
  const again = await uplift.submit(resource("sent-by-typescript"), labels);
  assert.equal(again.id, first.id);
  assert.equal((await uplift.waitUntilFinal(first.id, SECONDS)).status, "delivered");
  assert.equal((await uplift.attempts(first.id))[0].statusCode, 201);
  await assert.rejects(uplift.cancel(first.id), (error) => error instanceof ProblemError && error.status === 409);
  const [found] = await all(uplift.search(user, "R4", "Observation", { _id: "sent-by-typescript" }));
  assert.equal(found.id, "sent-by-typescript");
  assert.deepEqual(JSON.parse(await uplift.readBack(user, "R4", `Observation/${found.id}`)), found);
});

test("records come in batches, and each has its result", async () => {
  const records = Array.from({ length: 450 }, () => ({ resource: JSON.parse(resource()), source: "org.example.a" }));
  records[7] = { resource: '{"no": "resource"}' };
  const results = await all(uplift.submitBatches(records.values(), { user, fhirVersion: "R4" }));
  assert.deepEqual(results.map((each) => each.record), records);
  assert.deepEqual(results.flatMap((each, index) => (each.problem ? [[index, each.problem.status]] : [])), [[7, 400]]);
  const batches = await all(uplift.batches({ user, limit: 2 }));
  assert.deepEqual(batches.map((each) => each.total), [50, 200, 200]);
  assert.equal((await all(uplift.batchLines(batches[2].id, 150))).length, 200);
  assert.equal((await uplift.batch(batches[2].id)).problems, 1);
  const ids = new Set((await all(uplift.uploads({ user, limit: 200 }))).map((each) => each.id));
  assert.ok(results.every((each) => each.problem || ids.has(each.id)));
  assert.ok((await uplift.userSummary(user)).total >= 449);
});

test("a dead letter is redriven", async () => {
  const labels = { fhirVersion: "R4", user };
  const upload = await uplift.submit(resource(undefined, ', "effectiveDateTime": 7'), labels);
  const done = await uplift.waitUntilFinal(upload.id, SECONDS);
  assert.deepEqual([done.status, done.issues.issue[0].expression], ["rejected", ["Observation.effectiveDateTime"]]);
  assert.equal((await uplift.redrive(upload.id)).status, "queued");
  await uplift.waitUntilFinal(upload.id, SECONDS);
  assert.equal((await uplift.redriveMany({ user, status: ["rejected"] })).queued, 1);
});

test("users, tokens and pauses", async () => {
  const name = `typescript/${randomUUID()}`;
  await uplift.addUser(name);
  assert.equal((await uplift.user(name)).grant, "active");
  assert.ok((await all(uplift.users())).some((each) => each.appUserId === name));
  assert.equal((await uplift.pause(name)).user, name);
  assert.ok((await uplift.pauses()).some((each) => each.user === name));
  const token = await uplift.addDeviceToken(name, 60);
  const device = new Uplift(url, token.token);
  const upload = await device.submit(resource(), { fhirVersion: "R4" });
  assert.equal((await device.cancel(upload.id)).status, "cancelled");
  await uplift.revokeDeviceToken(name, token.id);
  await assert.rejects(device.upload(upload.id), (error) => error.status === 401 && error.requestId !== undefined);
  await uplift.revokeDeviceTokens(name);
  await uplift.resume(name);
  const stored = await uplift.storeGrant(name, { accessToken: "a", expiresIn: 60 });
  assert.equal(stored.grantOrigin, "backend");
  assert.equal((await uplift.eraseUser(name)).status, "erased");
  await assert.rejects(uplift.user(name), (error) => error.status === 404);
});
