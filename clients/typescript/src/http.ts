import { NoAnswerError, NotUpliftError, ProblemError, type UpliftError } from "./errors.js";
import { pauseBefore, readRetryAfter, type Policy } from "./retries.js";

const TIMEOUT_MILLISECONDS = 60_000;

export interface Request {
  method: string;
  /** Path and query. The key goes to no other host. */
  target: string;
  body?: string;
  headers?: Record<string, string>;
  /** Whether a second request does no harm if the first one succeeded. */
  repeatable?: boolean;
}

export interface Reply {
  status: number;
  headers: Headers;
  text: string;
}

/** Sends requests to one API with one key, and repeats them. */
export class Http {
  constructor(
    private readonly base: string,
    private readonly key: () => string,
    private readonly policy: Policy,
    private readonly fetch: typeof globalThis.fetch,
  ) {}

  async send(request: Request): Promise<Reply> {
    const begun = Date.now();
    for (let tries = 1; ; tries++) {
      const reply = await this.once(request);
      if (typeof reply !== "string" && (reply.status === 304 || (reply.status >= 200 && reply.status < 300)))
        return reply;
      const pause = pauseBefore(this.policy, {
        status: typeof reply === "string" ? undefined : reply.status,
        retryAfter: typeof reply === "string" ? undefined : readRetryAfter(reply.headers.get("Retry-After")),
        tries,
        elapsed: (Date.now() - begun) / 1000,
        repeatable: request.repeatable ?? true,
        spread: Math.random(),
      });
      if (pause === undefined) throw errorOf(reply);
      await sleep(pause);
    }
  }

  async json<Shape>(request: Request): Promise<Shape> {
    return parse<Shape>(await this.send(request));
  }

  /** One request: its response, or why there is none. */
  private async once(request: Request): Promise<Reply | string> {
    const headers = { Accept: "application/json", Authorization: `Bearer ${this.key()}` };
    try {
      const response = await this.fetch(this.base + request.target, {
        method: request.method,
        headers: { ...headers, ...request.headers },
        ...(request.body === undefined ? {} : { body: request.body }),
        redirect: "manual",
        cache: "no-store",
        credentials: "omit",
        signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
      });
      return { status: response.status, headers: response.headers, text: await response.text() };
    } catch (error) {
      return error instanceof Error && error.name === "TimeoutError"
        ? "it does not answer in time"
        : "it cannot be reached, or the connection breaks";
    }
  }
}

/** The JSON of a reply. */
export function parse<Shape>(reply: Reply): Shape {
  try {
    const found: unknown = JSON.parse(reply.text);
    if (typeof found === "object" && found !== null) return found as Shape;
  } catch {
    // told below
  }
  throw new NotUpliftError("What answers there is not Uplift's API.");
}

export function sleep(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

function errorOf(reply: Reply | string): UpliftError {
  if (typeof reply === "string") return new NoAnswerError(`No answer of the API: ${reply}.`);
  // In browsers, the status of a redirect that is not followed is 0.
  if (reply.status < 400) return new NotUpliftError("The answer leads to another address.");
  const isProblem = reply.headers.get("Content-Type")?.includes("problem+json") ?? false;
  if (!isProblem && (reply.status === 404 || reply.status === 405))
    return new NotUpliftError("What answers there is not Uplift's API.");
  return new ProblemError(
    reply.status,
    isProblem ? parse(reply) : {},
    reply.headers.get("X-Request-ID") ?? undefined,
    readRetryAfter(reply.headers.get("Retry-After")),
  );
}
