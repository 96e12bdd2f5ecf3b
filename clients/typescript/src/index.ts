export { Uplift, type Options, type UploadFilter, type UserFilter } from "./client.js";
export { NoAnswerError, NotFinalError, NotUpliftError, ProblemError, UpliftError } from "./errors.js";
export type { FhirRecord, FhirResource, Labels, RecordResult } from "./records.js";
export type {
  Attempt,
  BatchLine,
  BatchStatus,
  BatchSummary,
  DeviceToken,
  DeviceTokenList,
  ErasureStatus,
  Issue,
  Issues,
  LineProblem,
  ListedDeviceToken,
  PauseStatus,
  Problem,
  Receipt,
  RedriveReport,
  RedriveRequest,
  TryNowReport,
  TryNowRequest,
  UploadStatus,
  UserStatus,
  UserSummary,
} from "./types.gen.js";
