import type { BatchLine } from "./types.gen.js";

// Several requests, not one long one: each is safe once it has its answer, a failed one is repeated
// quickly, and each is smaller than the 1 MiB that proxies such as nginx accept.
export const BATCH_RECORDS = 200;
export const BATCH_CHARACTERS = 384 * 1024;

/** A FHIR resource. As text, it is delivered character by character. */
export type FhirResource = string | Readonly<Record<string, unknown>>;

/** What an upload says about its resource. */
export interface Labels {
  /** Your own name for the person. A device token needs none. */
  user?: string | undefined;
  /** `DSTU2`, `STU3` or `R4`. */
  fhirVersion?: string | undefined;
  /** Where the record comes from. */
  source?: string | undefined;
  /** The record's id there. */
  recordId?: string | undefined;
  /** Its address at the FHIR server that it is from. */
  sourceUrl?: string | undefined;
  /** When the phone got it: ISO 8601, with a zone. */
  receivedAt?: string | undefined;
  /** It counts as newer than what came before. */
  force?: boolean | undefined;
}

/** A resource of a batch. What it does not say is as the batch says. */
export interface FhirRecord extends Omit<Labels, "user"> {
  resource: FhirResource;
}

/** What the API made of a record of a batch: an upload, or a problem. */
export interface RecordResult extends Omit<BatchLine, "line"> {
  record: FhirRecord;
}

/** An envelope around the resource's own text. Names stay out of addresses, which are logged. */
export function envelope(resource: FhirResource, labels: Labels): string {
  const { user, fhirVersion, source, recordId, sourceUrl, receivedAt, force } = labels;
  const told = { user, fhirVersion, source, recordId, sourceUrl, receivedAt, force };
  const named = JSON.stringify(told).slice(0, -1);
  const text = typeof resource === "string" ? resource : JSON.stringify(resource);
  return `${named}${named === "{" ? "" : ","}"resource":${text}}`;
}

/** A record as a line of NDJSON. JSON allows line breaks only where a space means the same. */
export function line(record: FhirRecord): string {
  return `${envelope(record.resource, { ...record, user: undefined }).replace(/[\r\n]/g, " ")}\n`;
}

/** Cuts a stream of records into pieces, each for one request. */
export class Cutter {
  private piece: FhirRecord[] = [];
  private lines: string[] = [];
  private characters = 0;

  /** Adds one. Returns the piece before it if it has no place there. */
  add(record: FhirRecord): Piece | undefined {
    const text = line(record);
    const isFull =
      this.piece.length > 0 &&
      (this.piece.length === BATCH_RECORDS || this.characters + text.length > BATCH_CHARACTERS);
    const full = isFull ? this.rest() : undefined;
    this.piece.push(record);
    this.lines.push(text);
    this.characters += text.length;
    return full;
  }

  /** What is left when the stream ends. */
  rest(): Piece {
    const piece = { records: this.piece, lines: this.lines };
    this.piece = [];
    this.lines = [];
    this.characters = 0;
    return piece;
  }
}

export interface Piece {
  records: FhirRecord[];
  lines: string[];
}
