import { NotFinalError, NotUpliftError, ProblemError } from "./errors.js";
import { Http, parse, sleep, type Request } from "./http.js";
import { Cutter, envelope, line, type FhirRecord, type FhirResource, type Labels, type Piece, type RecordResult } from "./records.js";
import { readRetryAfter } from "./retries.js";
import type {
  Attempt,
  AttemptList,
  BatchLine,
  BatchResult,
  BatchStatus,
  BatchSummary,
  DeviceToken,
  DeviceTokenList,
  ErasureStatus,
  LineProblem,
  ListedDeviceToken,
  PauseList,
  PauseStatus,
  RedriveReport,
  RedriveRequest,
  TryNowReport,
  TryNowRequest,
  UploadStatus,
  UserStatus,
  UserSummary,
  ListUploadsData,
  ListUsersData,
} from "./types.gen.js";

const LONG_POLL_SECONDS = 30;
const JSON_TYPE = { "Content-Type": "application/json" };

export interface Options {
  /** For how many seconds one call is repeated: 120. */
  patience?: number;
  /** The longest pause before the first repetition, in seconds: 0.5. It doubles. */
  firstPause?: number;
  fetch?: typeof globalThis.fetch;
}

export type UploadFilter = Omit<NonNullable<ListUploadsData["query"]>, "after">;
export type UserFilter = Omit<NonNullable<ListUsersData["query"]>, "after">;

/** Calls one Uplift API with one key, and repeats a call to a busy or restarting API. */
export class Uplift {
  readonly #http: Http;

  /**
   * @param url where the API listens, such as https://uplift.example.com
   * @param key an API key or a device token
   */
  constructor(url: string, key: string, options: Options = {}) {
    const policy = { patience: options.patience ?? 120, firstPause: options.firstPause ?? 0.5 };
    // Browsers' fetch must not be called as a method of another object.
    const send = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.#http = new Http(url.replace(/\/+$/, ""), () => key, policy, send);
  }

  /** Submits one FHIR resource. When this resolves, Uplift keeps it and will deliver it. */
  submit(
    resource: FhirResource,
    labels: Labels & { fhirVersion: string; idempotencyKey?: string },
  ): Promise<UploadStatus> {
    const key = (labels.idempotencyKey ?? randomKey()).replace(/[\\"]/g, "\\$&");
    return this.#http.json({
      method: "POST",
      target: "/v1/uploads",
      body: envelope(resource, labels),
      // The same in each repetition.
      headers: { ...JSON_TYPE, "Idempotency-Key": `"${key}"` },
    });
  }

  upload(id: string): Promise<UploadStatus> {
    return this.#http.json(get(`/v1/uploads/${segment(id)}`));
  }

  /** Waits for the final status. A parked upload is not final: it waits for its person. */
  async waitUntilFinal(id: string, seconds = 300): Promise<UploadStatus> {
    const ends = Date.now() + seconds * 1000;
    let etag: string | null = null;
    let latest: UploadStatus | undefined;
    for (;;) {
      const asked = Date.now();
      const wait = Math.max(0, Math.min(LONG_POLL_SECONDS, (ends - asked) / 1000));
      const reply = await this.#http.send({
        ...get(`/v1/uploads/${segment(id)}?wait=${wait.toFixed(3)}`),
        headers: etag === null ? {} : { "If-None-Match": etag },
      });
      const isNews = reply.status !== 304;
      if (isNews) latest = parse<UploadStatus>(reply);
      if (latest === undefined) throw new NotUpliftError("The answer is 304, but nobody asked for a change.");
      etag = reply.headers.get("ETag") ?? etag;
      if (latest.final) return latest;
      const left = (ends - Date.now()) / 1000;
      if (left <= 0) throw new NotFinalError(latest);
      // The API may end a long poll early, because others need its place, or allow none at all.
      if (!isNews && (Date.now() - asked) / 1000 < wait / 2)
        await sleep(Math.min(readRetryAfter(reply.headers.get("Retry-After")) ?? 1, left));
    }
  }

  uploads(filter: UploadFilter = {}): AsyncGenerator<UploadStatus> {
    return this.#pages(`/v1/uploads${query({ limit: 500, ...filter })}`, "uploads");
  }

  async attempts(id: string): Promise<Attempt[]> {
    return (await this.#http.json<AttemptList>(get(`/v1/uploads/${segment(id)}/attempts`))).attempts;
  }

  cancel(id: string): Promise<UploadStatus> {
    return this.#http.json({ method: "DELETE", target: `/v1/uploads/${segment(id)}` });
  }

  redrive(id: string): Promise<UploadStatus> {
    return this.#http.json({ method: "POST", target: `/v1/uploads/${segment(id)}/redrive` });
  }

  redriveMany(request: RedriveRequest): Promise<RedriveReport> {
    return this.#http.json(sending("POST", "/v1/uploads/redrive", request));
  }

  /** Tries a queued upload now that waits for a later attempt. */
  tryNow(id: string): Promise<UploadStatus> {
    return this.#http.json({ method: "POST", target: `/v1/uploads/${segment(id)}/try-now` });
  }

  /** Tries all waiting uploads now that match every filter, or `{ all: true }`. */
  tryManyNow(request: TryNowRequest): Promise<TryNowReport> {
    return this.#http.json(sending("POST", "/v1/uploads/try-now", request));
  }

  /**
   * Submits any number of records of one person, in requests of less than half a mebibyte. Gives
   * the result of each record, in their order, as soon as its request has an answer.
   */
  async *submitBatches(
    records: Iterable<FhirRecord> | AsyncIterable<FhirRecord>,
    labels: Omit<Labels, "recordId"> = {},
  ): AsyncGenerator<RecordResult> {
    const cutter = new Cutter();
    for await (const record of records) {
      const piece = cutter.add(record);
      if (piece) yield* await this.#submitPiece(piece, labels);
    }
    const rest = cutter.rest();
    if (rest.records.length > 0) yield* await this.#submitPiece(rest, labels);
  }

  /** Submits records of one person in one request. `submitBatches` makes several. */
  submitBatch(records: readonly FhirRecord[], labels: Omit<Labels, "recordId"> = {}): Promise<RecordResult[]> {
    return this.#submitPiece({ records: [...records], lines: records.map(line) }, labels);
  }

  batch(id: string): Promise<BatchStatus> {
    return this.#http.json(get(`/v1/batches/${segment(id)}`));
  }

  batches(filter: { user?: string; limit?: number } = {}): AsyncGenerator<BatchSummary> {
    return this.#pages(`/v1/batches${query({ limit: 500, ...filter })}`, "batches");
  }

  batchLines(id: string, limit = 1000): AsyncGenerator<BatchLine> {
    return this.#pages(`/v1/batches/${segment(id)}/lines?limit=${limit}`, "lines");
  }

  addUser(appUserId: string): Promise<UserStatus> {
    return this.#http.json(sending("POST", "/v1/users", { appUserId }));
  }

  users(filter: UserFilter = {}): AsyncGenerator<UserStatus> {
    return this.#pages(`/v1/users${query({ limit: 500, ...filter })}`, "users");
  }

  user(appUserId: string): Promise<UserStatus> {
    return this.#http.json(get(userPath(appUserId)));
  }

  userSummary(appUserId: string): Promise<UserSummary> {
    return this.#http.json(get(`${userPath(appUserId)}/summary`));
  }

  storeGrant(
    appUserId: string,
    grant: { accessToken: string; refreshToken?: string; expiresIn: number },
  ): Promise<UserStatus> {
    return this.#http.json(sending("PUT", `${userPath(appUserId)}/grant`, grant));
  }

  /** Sends what a user brings to another destination from now on, and what was never sent. */
  moveUser(appUserId: string, destination: string): Promise<UserStatus> {
    return this.#http.json(sending("PUT", `${userPath(appUserId)}/destination`, { destination }));
  }

  /** Says which Patient stands for a user at a destination, before anything is sent there. */
  namePatient(appUserId: string, patient: { id: string; destination?: string }): Promise<UserStatus> {
    return this.#http.json(sending("PUT", `${userPath(appUserId)}/patient`, patient));
  }

  /** Makes the next upload of each of a user's records new content. Their syncToken changes. */
  resendUser(appUserId: string): Promise<UserStatus> {
    return this.#http.json({ method: "POST", target: `${userPath(appUserId)}/resend` });
  }

  /** Destroys all data of a user. Undefined: nothing is left; else call it again to see when. */
  async eraseUser(appUserId: string, wait = 10): Promise<ErasureStatus> {
    return this.#http.json<ErasureStatus>({ method: "DELETE", target: `${userPath(appUserId)}?wait=${wait}` });
  }

  async deviceTokens(appUserId: string): Promise<ListedDeviceToken[]> {
    return (await this.#http.json<DeviceTokenList>(get(`${userPath(appUserId)}/device-tokens`))).deviceTokens;
  }

  addDeviceToken(appUserId: string, expiresIn: number, name?: string): Promise<DeviceToken> {
    const request = sending("POST", `${userPath(appUserId)}/device-tokens`, { expiresIn, name });
    // A token whose answer is lost would stay valid, and nobody would know of it.
    return this.#http.json({ ...request, repeatable: false });
  }

  async revokeDeviceToken(appUserId: string, id: string): Promise<void> {
    const target = `${userPath(appUserId)}/device-tokens/${segment(id)}`;
    await this.#http.send({ method: "DELETE", target });
  }

  async revokeDeviceTokens(appUserId: string): Promise<void> {
    await this.#http.send({ method: "DELETE", target: `${userPath(appUserId)}/device-tokens` });
  }

  async pauses(): Promise<PauseStatus[]> {
    return (await this.#http.json<PauseList>(get("/v1/pauses"))).pauses;
  }

  /** Stops sending for this user, or for everybody. */
  pause(appUserId?: string): Promise<PauseStatus> {
    return this.#http.json({ method: "PUT", target: pausePath(appUserId) });
  }

  async resume(appUserId?: string): Promise<void> {
    await this.#http.send({ method: "DELETE", target: pausePath(appUserId) });
  }

  /** What the destination has of the user, as text: a resource, or one page of a search. */
  async readBack(
    appUserId: string,
    fhirVersion: string,
    path: string,
    search: Record<string, string | number> = {},
  ): Promise<string> {
    return (await this.#http.send(get(fhirPath(appUserId, fhirVersion, path) + query(search)))).text;
  }

  /** The resources that a search finds at the destination. */
  async *search(
    appUserId: string,
    fhirVersion: string,
    type: string,
    search: Record<string, string | number> = {},
  ): AsyncGenerator<Record<string, unknown>> {
    let target: string | undefined = fhirPath(appUserId, fhirVersion, type) + query(search);
    while (target !== undefined) {
      const page: Bundle = await this.#http.json<Bundle>(get(target));
      for (const entry of page.entry ?? []) if (entry.resource) yield entry.resource;
      const next = page.link?.find((each) => each.relation === "next");
      target = next && targetOf(next.url);
    }
  }

  /**
   * If the API refuses the request for what is in it, the records go in smaller ones: one of them
   * may be at fault, or their total size.
   */
  async #submitPiece(piece: Piece, labels: Omit<Labels, "recordId">): Promise<RecordResult[]> {
    const { records, lines } = piece;
    let found: BatchLine[];
    try {
      const { user, fhirVersion, source } = labels;
      const result = await this.#http.json<BatchResult>({
        method: "POST",
        target: `/v1/batches${query({ user, fhirVersion, source })}`,
        body: lines.join(""),
        headers: { "Content-Type": "application/x-ndjson" },
      });
      found = result.lines ?? [];
    } catch (error) {
      if (!(error instanceof ProblemError) || !isAboutRecords(error.status)) throw error;
      const [record] = records;
      if (records.length === 1 && record) {
        const { status, title, detail, code } = error;
        return [{ record, problem: { status, title, detail, code } as LineProblem }];
      }
      const middle = Math.floor(records.length / 2);
      const part = (from: number, to?: number): Promise<RecordResult[]> =>
        this.#submitPiece({ records: records.slice(from, to), lines: lines.slice(from, to) }, labels);
      return [...(await part(0, middle)), ...(await part(middle))];
    }
    if (found.length !== records.length || found.some((each, index) => each.line !== index + 1))
      throw new NotUpliftError("The answer to a batch does not have one result for each line.");
    return records.map((record, index) => {
      const { line: _, ...result } = found[index]!;
      return { record, ...result };
    });
  }

  async *#pages<Item>(first: string, name: string): AsyncGenerator<Item> {
    let target: string | undefined = first;
    while (target !== undefined) {
      const page: ListPage<Item> = await this.#http.json<ListPage<Item>>(get(target));
      const items = page[name];
      if (!Array.isArray(items)) throw new NotUpliftError("What answers there is not Uplift's API.");
      yield* items;
      target = page.next ? targetOf(page.next) : undefined;
    }
  }
}

type ListPage<Item> = { next?: string | null } & Record<string, Item[] | string | null | undefined>;

interface Bundle {
  link?: { relation: string; url: string }[];
  entry?: { resource?: Record<string, unknown> }[];
}

function isAboutRecords(status: number): boolean {
  // An API that goes on failing with 500 may fail at one record. The other 5xx are about the API,
  // and some 4xx about the caller.
  return status === 500 || (status < 500 && ![401, 403, 404, 408, 429].includes(status));
}

function get(target: string): Request {
  return { method: "GET", target };
}

function sending(method: string, target: string, members: object): Request {
  return { method, target, body: JSON.stringify(members), headers: JSON_TYPE };
}

function segment(name: string): string {
  return encodeURIComponent(name);
}

function userPath(appUserId: string): string {
  return `/v1/users/${segment(appUserId)}`;
}

function pausePath(appUserId: string | undefined): string {
  return appUserId === undefined ? "/v1/pause" : `${userPath(appUserId)}/pause`;
}

function fhirPath(appUserId: string, fhirVersion: string, path: string): string {
  const segments = path.split("/").map((each) => segment(each).replace("%24", "$"));
  return `${userPath(appUserId)}/fhir/${segment(fhirVersion)}/${segments.join("/")}`;
}

type Parameter = string | number | null | undefined | readonly string[];

function query(parameters: Record<string, Parameter>): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const each of Array.isArray(value) ? value : [value])
      if (each !== undefined && each !== null) given.append(name, String(each));
  const text = given.toString();
  return text && `?${text}`;
}

/** Path and query of a link. A proxy's own path is already in the client's URL. */
function targetOf(link: string): string {
  const { pathname, search } = new URL(link, "http://links.invalid");
  return pathname.slice(Math.max(pathname.indexOf("/v1/"), 0)) + search;
}

function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");
}
