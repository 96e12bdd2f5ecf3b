/** When to repeat a call: facts in, a pause or nothing out. Times are in seconds. */

const LATER = new Set([408, 429, 502, 503, 504]);
// With these the API has done nothing. After the others, a proxy may have passed the request on.
const NOTHING_DONE = new Set([429, 503]);
const TRIES_OF_A_FAILURE = 3;
const MAX_PAUSE = 15;

export interface Policy {
  patience: number;
  firstPause: number;
}

export interface Facts {
  /** The HTTP status; undefined if there was no response. */
  status: number | undefined;
  retryAfter: number | undefined;
  /** How many requests were sent, and how long ago the first one was. */
  tries: number;
  elapsed: number;
  /** Whether a request that succeeded may be sent twice. */
  repeatable: boolean;
  /** A random number from 0 to 1, so that clients do not come back all at once. */
  spread: number;
}

/** How long to wait before the next request. Undefined: this one was the last. */
export function pauseBefore(policy: Policy, facts: Facts): number | undefined {
  const { status, tries, elapsed } = facts;
  const mayPass =
    status === undefined || LATER.has(status) || (status === 500 && tries < TRIES_OF_A_FAILURE);
  const undone = status !== undefined && NOTHING_DONE.has(status);
  if (!mayPass || !(facts.repeatable || undone)) return undefined;
  const atLeast = facts.retryAfter ?? 0;
  if (elapsed + atLeast >= policy.patience) return undefined;
  const longest = Math.min(policy.firstPause * 2 ** Math.min(tries - 1, 10), MAX_PAUSE);
  return atLeast + facts.spread * longest;
}

/** Seconds that `Retry-After` asks for, in either of its forms (RFC 9110, 10.2.3). */
export function readRetryAfter(value: string | null): number | undefined {
  if (value === null) return undefined;
  if (/^[0-9]+$/.test(value)) return Number(value);
  const moment = /^[A-Z][a-z]{2}, /.test(value) ? Date.parse(value) : NaN;
  return Number.isNaN(moment) ? undefined : Math.max(0, (moment - Date.now()) / 1000);
}
