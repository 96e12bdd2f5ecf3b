// The rules of the client, with a fetch that answers as the test says.
// UPLIFT_CLIENT is the address of the built index.js.
import assert from "node:assert/strict";
import { test } from "node:test";

const { NoAnswerError, NotFinalError, NotUpliftError, ProblemError, Uplift } = await import(process.env.UPLIFT_CLIENT);

const URL_BELOW = "https://uplift.example.com/below/";
const UPLOAD = { id: "u-1", status: "queued", final: false };

const json = (content, status = 200, headers = {}) =>
  new Response(JSON.stringify(content), { status, headers: { "Content-Type": "application/json", ...headers } });
const problem = (status, headers = {}) =>
  json({ title: "Title", detail: "Detail.", status, code: "some_code" }, status, {
    "Content-Type": "application/problem+json",
    ...headers,
  });

/** A client whose requests are kept, and answered by `respond` or by a list of responses. */
function client(respond, options = {}) {
  const requests = [];
  const waiting = Array.isArray(respond) ? [...respond] : undefined;
  const fetch = async (url, init) => {
    requests.push({ url, ...init });
    const response = waiting ? waiting.shift() : respond(init);
    if (response instanceof Error) throw response;
    return response;
  };
  return { uplift: new Uplift(URL_BELOW, "the-key", { firstPause: 0.001, fetch, ...options }), requests };
}

const all = async (items) => {
  const found = [];
  for await (const each of items) found.push(each);
  return found;
};

function accept({ body }) {
  const lines = body.trimEnd().split("\n").map((line, index) => ({ line: index + 1, id: JSON.parse(line).recordId, status: "queued" }));
  return json({ lines }, 202);
}

const records = (count) =>
  Array.from({ length: count }, (_, number) => ({ resource: '{"a":\r\n1.50e0}', fhirVersion: "R4", recordId: `${number}` }));

test("a record is sent with its own text, and names stay out of the address", async () => {
  const { uplift, requests } = client([json(UPLOAD, 202)]);
  await uplift.submit('{ "x": 1.50e0 }', { user: "alice", fhirVersion: "R4", source: 'St. "Müller"' });
  const [{ url, body, headers, redirect }] = requests;
  assert.equal(url, "https://uplift.example.com/below/v1/uploads");
  assert.equal(body, '{"user":"alice","fhirVersion":"R4","source":"St. \\"Müller\\"","resource":{ "x": 1.50e0 }}');
  assert.equal(headers.Authorization, "Bearer the-key");
  assert.equal(redirect, "manual");
});

test("a repeated submission is the same request", async () => {
  const { uplift, requests } = client([new TypeError("secret"), problem(503), problem(429), json(UPLOAD, 202)]);
  await uplift.submit({}, { fhirVersion: "R4" });
  assert.equal(requests.length, 4);
  assert.equal(new Set(requests.map((each) => each.headers["Idempotency-Key"])).size, 1);
});

test("what takes longer than the patience is not waited for", async () => {
  const { uplift } = client([problem(503, { "Retry-After": "3600", "X-Request-ID": "r-1" })]);
  await assert.rejects(uplift.upload("u-1"), (error) => {
    assert.ok(error instanceof ProblemError);
    assert.deepEqual([error.status, error.code, error.retryAfter, error.requestId], [503, "some_code", 3600, "r-1"]);
    assert.equal(error.message, "503: Detail. (request r-1)");
    return true;
  });
});

for (const status of [400, 401, 403, 404, 409, 422])
  test(`${status} is not repeated`, async () => {
    const { uplift, requests } = client([problem(status)]);
    await assert.rejects(uplift.upload("u-1"), ProblemError);
    assert.equal(requests.length, 1);
  });

test("an API that goes on failing is asked three times", async () => {
  const { uplift, requests } = client(() => problem(500));
  await assert.rejects(uplift.upload("u-1"), ProblemError);
  assert.equal(requests.length, 3);
});

test("a device token is not made twice", async () => {
  const { uplift, requests } = client([new TypeError("secret")]);
  await assert.rejects(uplift.addDeviceToken("alice", 60), (error) => error instanceof NoAnswerError && !error.message.includes("secret"));
  assert.equal(requests.length, 1);
});

for (const [name, response] of [
  ["a page", new Response("<html>")],
  ["another 404", new Response("", { status: 404 })],
  ["a redirect", new Response("", { status: 307, headers: { Location: "https://198.51.100.1/" } })],
])
  test(`another server is noticed: ${name}`, async () => {
    await assert.rejects(client([response]).uplift.upload("u-1"), NotUpliftError);
  });

test("long polls ask for a change", async () => {
  const { uplift, requests } = client([
    json(UPLOAD, 200, { ETag: '"1"' }),
    json({ ...UPLOAD, status: "parked" }, 200, { ETag: '"2"' }),
    json({ ...UPLOAD, status: "delivered", final: true }, 200, { ETag: '"3"' }),
  ]);
  assert.equal((await uplift.waitUntilFinal("u-1", 60)).status, "delivered");
  assert.deepEqual(requests.map((each) => each.headers["If-None-Match"]), [undefined, '"1"', '"2"']);
  assert.match(requests[0].url, /wait=30/);
});

test("when the time is up, the error has the latest status", async () => {
  const unchanged = () => new Response(null, { status: 304, headers: { "Retry-After": "60" } });
  const { uplift } = client([json(UPLOAD, 200, { ETag: '"1"' }), unchanged(), unchanged(), unchanged()]);
  await assert.rejects(uplift.waitUntilFinal("u-1", 0.05), (error) => error instanceof NotFinalError && error.upload.status === "queued");
});

test("records of an iterator go in several requests, each on a line", async () => {
  const { uplift, requests } = client(accept);
  const results = await all(uplift.submitBatches(records(450).values(), { user: "a&b", fhirVersion: "DSTU2" }));
  assert.deepEqual(results.map((each) => each.id), records(450).map((each) => each.recordId));
  assert.deepEqual(requests.map((each) => each.body.trimEnd().split("\n").length), [200, 200, 50]);
  assert.equal(requests[0].url, "https://uplift.example.com/below/v1/batches?user=a%26b&fhirVersion=DSTU2");
  assert.equal(requests[0].body.split("\n")[0], '{"fhirVersion":"R4","recordId":"0","resource":{"a":  1.50e0}}');
  assert.deepEqual(await all(uplift.submitBatches([])), []);
});

for (const status of [400, 413, 500])
  test(`one record at fault does not stop the others: ${status}`, async () => {
    const { uplift } = client((init) => (init.body.includes('"recordId":"5"') ? problem(status) : accept(init)));
    const results = await uplift.submitBatch(records(9));
    assert.deepEqual(results.map((each) => each.record.recordId), records(9).map((each) => each.recordId));
    assert.deepEqual(results.filter((each) => each.problem).map((each) => [each.record.recordId, each.problem.status]), [["5", status]]);
  });

for (const status of [401, 403, 404])
  test(`a wrong caller is not asked for in halves: ${status}`, async () => {
    const { uplift, requests } = client(() => problem(status));
    await assert.rejects(uplift.submitBatch(records(9)), ProblemError);
    assert.equal(requests.length, 1);
  });

test("an answer that leaves lines out is not believed", async () => {
  const { uplift } = client([json({ lines: [{ line: 1, id: "u-1", status: "queued" }] }, 202)]);
  await assert.rejects(uplift.submitBatch(records(2)), NotUpliftError);
});

test("pages are followed, but never to another host", async () => {
  const { uplift, requests } = client([
    json({ uploads: [{ id: "1" }], next: "http://198.51.100.1/v1/uploads?after=1" }),
    json({ uploads: [{ id: "2" }], next: null }),
  ]);
  const found = await all(uplift.uploads({ user: "alice", status: ["rejected", "expired"], limit: 1 }));
  assert.deepEqual(found.map((each) => each.id), ["1", "2"]);
  assert.deepEqual(requests.map((each) => each.url), [
    "https://uplift.example.com/below/v1/uploads?limit=1&user=alice&status=rejected&status=expired",
    "https://uplift.example.com/below/v1/uploads?after=1",
  ]);
});

test("names are one segment of the path", async () => {
  const { uplift, requests } = client(() => json({}));
  await uplift.user("Patient/1 ü");
  await uplift.readBack("a", "R4", "Patient/1/$everything", { _count: 2 });
  assert.deepEqual(requests.map((each) => each.url.replace(URL_BELOW, "/")), [
    "/v1/users/Patient%2F1%20%C3%BC",
    "/v1/users/a/fhir/R4/Patient/1/$everything?_count=2",
  ]);
});
