import type { Problem, UploadStatus } from "./types.gen.js";

/** A call failed. No message quotes a record or a key. */
export class UpliftError extends Error {
  override name = "UpliftError";
}

/** Nothing answers at the address of the API, or the connection breaks. */
export class NoAnswerError extends UpliftError {
  override name = "NoAnswerError";
}

/** Something answers at that address that is not Uplift's API. */
export class NotUpliftError extends UpliftError {
  override name = "NotUpliftError";
}

/** The time is up, and the upload does not have its final status. */
export class NotFinalError extends UpliftError {
  override name = "NotFinalError";

  constructor(readonly upload: UploadStatus) {
    super(`The upload ${upload.id} is ${upload.status}, which is not final.`);
  }
}

/** The API answers with a problem (RFC 9457). `status` is the HTTP status. */
export class ProblemError extends UpliftError {
  override name = "ProblemError";
  readonly title: string;
  /** What was wrong, and what to do. */
  readonly detail: string;
  /** The problem's own code, if the API gives one. */
  readonly code: string | undefined;
  /** The wrong fields of the request. */
  readonly errors: { where: string; what: string }[];

  constructor(
    readonly status: number,
    problem: Partial<Problem> & { code?: string },
    /** The logs of the API name it. */
    readonly requestId: string | undefined,
    /** In how many seconds the API asks to try again. */
    readonly retryAfter: number | undefined,
  ) {
    const errors = problem.errors ?? [];
    const fields = errors.map((each) => `${each.where}: ${each.what}`).join(", ");
    const words = [problem.detail ?? problem.title, fields].filter(Boolean).join(" ");
    super(`${status}: ${words}${requestId ? ` (request ${requestId})` : ""}`);
    this.title = problem.title ?? "";
    this.detail = problem.detail ?? "";
    this.code = problem.code;
    this.errors = errors;
  }
}
