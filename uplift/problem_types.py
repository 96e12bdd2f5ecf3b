"""The kinds of problems that callers meet: a code, an HTTP status and a title for each.

`docs/errors.md` says what to do about each; a test keeps it complete. The code is the promise to
programs: it is never given another meaning (`docs/versioning.md`).
"""

from enum import Enum


class ProblemType(Enum):
    """A problem type (RFC 9457, 3.1.1)."""

    def __init__(self, code: str, status: int, title: str) -> None:
        self.code = code
        self.status = status
        self.title = title

    # The request as HTTP.
    MALFORMED_HTTP = ("malformed_http", 400, "The request is not well-formed HTTP/1.1")
    HEAD_TOO_SLOW = ("head_too_slow", 408, "The head of the request did not arrive in time")
    HEAD_TOO_LARGE = ("head_too_large", 431, "The head of the request is too large")
    UNKNOWN_EXPECTATION = ("unknown_expectation", 417, "Expectation not known")
    UNKNOWN_METHOD = ("unknown_method", 501, "HTTP method not known")
    UNKNOWN_TRANSFER_CODING = ("unknown_transfer_coding", 501, "Transfer coding not known")
    UNKNOWN_HTTP_VERSION = ("unknown_http_version", 505, "HTTP version not supported")
    NO_SUCH_ADDRESS = ("no_such_address", 404, "No such address")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "Method not allowed at this address")
    BODY_TOO_SLOW = ("body_too_slow", 408, "The body did not arrive in time")
    BODY_INCOMPLETE = ("body_incomplete", 400, "The body did not arrive completely")
    BODY_TOO_LARGE = ("body_too_large", 413, "The body is too large")
    NOT_GZIP = ("not_gzip", 400, "The body is not gzip")
    CONTENT_TYPE = ("content_type", 415, "Content-Type not accepted")
    CONTENT_ENCODING = ("content_encoding", 415, "Content-Encoding not accepted")

    # Who asks.
    INVALID_TOKEN = ("invalid_token", 401, "No valid credential")
    MISSING_SCOPE = ("missing_scope", 403, "The credential does not have the scope")
    OTHER_USER = ("other_user", 403, "A device token is for its own user only")

    # What the request says.
    INVALID_REQUEST = ("invalid_request", 400, "A parameter or field is wrong")
    INVALID_USER = ("invalid_user", 400, "The user is missing or wrong")
    INVALID_IDEMPOTENCY_KEY = ("invalid_idempotency_key", 400, "The Idempotency-Key is wrong")
    NOT_JSON = ("not_json", 400, "The body is not JSON")
    REPEATED_NAME = ("repeated_name", 400, "An object has a name twice")
    TOO_MANY_VALUES = ("too_many_values", 400, "The body has too many JSON values")
    NOT_A_RESOURCE = ("not_a_resource", 400, "The body is not a FHIR resource")
    SEND_AS_BATCH = ("send_as_batch", 400, "A Bundle goes to /v1/batches")
    FHIR_VERSION = ("fhir_version", 400, "The FHIR version is missing or wrong")
    VERSION_NOT_TAKEN = (
        "version_not_taken",
        422,
        "The destination does not take this FHIR version",
    )
    INVALID_ENVELOPE = ("invalid_envelope", 400, "The envelope is wrong")
    UNSTORABLE_TEXT = ("unstorable_text", 400, "A text cannot be stored")
    INVALID_BUNDLE = ("invalid_bundle", 400, "The body is not a Bundle that becomes a batch")
    EMPTY_BATCH = ("empty_batch", 400, "The batch is empty")
    BATCH_OF_OTHER_USER = ("batch_of_other_user", 400, "The line is of another user")
    BATCH_TOO_LONG = ("batch_too_long", 413, "The batch has too many lines")

    # What is there.
    NO_SUCH_DESTINATION = ("no_such_destination", 404, "No such destination")
    NO_SUCH_USER = ("no_such_user", 404, "No such user")
    NO_SUCH_UPLOAD = ("no_such_upload", 404, "No such upload")
    NO_SUCH_BATCH = ("no_such_batch", 404, "No such batch")
    NO_SUCH_DEVICE_TOKEN = ("no_such_device_token", 404, "No such device token")
    BATCH_EXISTS = ("batch_exists", 409, "The batch exists")
    NOT_CANCELLABLE = ("not_cancellable", 409, "The upload cannot be cancelled")
    NOT_REDRIVABLE = ("not_redrivable", 409, "The upload cannot be redriven")
    PATIENT_CANNOT_BE_NAMED = ("patient_cannot_be_named", 409, "The Patient cannot be named")
    BEING_ERASED = ("being_erased", 409, "The user is being erased")
    USER_ERASED = ("user_erased", 409, "The user was erased during the request")
    IDEMPOTENCY_KEY_REUSED = ("idempotency_key_reused", 422, "Idempotency-Key already used")

    # Reading back.
    INVALID_READ = ("invalid_read", 400, "The address is not a FHIR read")
    READ_REFUSED = ("read_refused", 400, "The destination refuses the read")
    NO_SUCH_TYPE = ("no_such_type", 404, "No such resource type")
    NO_SUCH_RESOURCE = ("no_such_resource", 404, "No such resource at the destination")
    RESOURCE_DELETED = ("resource_deleted", 404, "The resource was deleted at the destination")
    NEEDS_AUTHORIZATION = ("needs_authorization", 409, "The person must authorise again")
    UNUSABLE_RESPONSE = ("unusable_response", 502, "No usable response from the destination")
    UPSTREAM_TIMED_OUT = ("upstream_timed_out", 504, "The destination did not respond in time")

    # Not now.
    RATE_LIMITED = ("rate_limited", 429, "Too many records or bytes from this credential")
    USER_BACKLOG_FULL = ("user_backlog_full", 429, "Too many uploads of this user wait already")
    BACKLOG_FULL = ("backlog_full", 503, "Too many uploads wait already")
    BUSY = ("busy", 503, "The API is busy")
    UPSTREAM_UNAVAILABLE = ("upstream_unavailable", 503, "The destination is not available now")
    COMMIT_UNKNOWN = ("commit_unknown", 503, "Nobody knows whether it was accepted")
    DATABASE_UNAVAILABLE = ("database_unavailable", 503, "The database is not available")
    STOPPING = ("stopping", 503, "The process stops")
    KEYS_UNFIT = ("keys_unfit", 503, "The master keys do not fit the database")
    NOT_MIGRATED = ("not_migrated", 503, "The database has another schema")
    INTERNAL_ERROR = ("internal_error", 500, "Internal error")

    @property
    def uri(self) -> str:
        """Where the type is described, relative to the API (RFC 9457, 3.1.1)."""
        return f"/docs/errors.md#{self.code}"


BY_CODE = {each.code: each for each in ProblemType}
"""Problem types by their code."""
