/**
 * The codes, names and types by which systems and clients say that a service is unwell.
 *
 * @module
 */

/** A breaker's own errors for a service that it did not ask. */
export const NOT_ATTEMPTED = words(
  'CIRCUIT_OPEN CIRCUIT_CONCURRENCY_LIMIT CIRCUIT_UNKNOWN_SERVICE CIRCUIT_CONFIGURATION CIRCUIT_STORAGE',
)

/** UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
export const BREAKABLE_GRPC: ReadonlySet<unknown> = new Set([2, 4, 13, 14])

/**
 * DNS, Node's HTTP parser, TLS and certificates (https://nodejs.org/api/tls.html#x509-certificate-error-codes), and
 * PostgreSQL's connection exceptions and shutdowns (https://www.postgresql.org/docs/current/errcodes-appendix.html).
 */
export const BREAKABLE_FAMILIES =
  /^(EAI_|HPE_|ERR_SSL_|ERR_TLS_(CERT|DH|HANDSHAKE)_|(ERROR_IN_)?(CERT|CRL)_|UNABLE_TO_(GET_(CRL|ISSUER)|VERIFY_LEAF|DECODE_I|DECRYPT_C)|08[\dA-Z]{3}$|57P0[123]$)/

/**
 * The other codes, names and types that count: the system and DNS, Node, certificates, undici, then single clients.
 * The codes of one's own mistakes (`UND_ERR_INVALID_ARG`, `ERR_HTTP2_HEADERS_SENT`) are left out on purpose.
 */
export const BREAKABLE = words(`
  ECONNABORTED ECONNREFUSED ECONNRESET EPIPE EPROTO ETIMEDOUT EADDRNOTAVAIL EHOSTDOWN EHOSTUNREACH ENETDOWN ENETRESET
  ENETUNREACH ESOCKETTIMEDOUT ENOTFOUND ENODATA EBADRESP EREFUSED ESERVFAIL ETIMEOUT

  ERR_SOCKET_CONNECTION_TIMEOUT ERR_STREAM_PREMATURE_CLOSE ERR_PROXY_TUNNEL ERR_HTTP2_ERROR ERR_HTTP2_GOAWAY_SESSION
  ERR_HTTP2_PING_CANCEL ERR_HTTP2_SESSION_ERROR ERR_HTTP2_STREAM_CANCEL ERR_HTTP2_STREAM_ERROR AbortError

  DEPTH_ZERO_SELF_SIGNED_CERT SELF_SIGNED_CERT_IN_CHAIN HOSTNAME_MISMATCH INVALID_CA INVALID_PURPOSE
  PATH_LENGTH_EXCEEDED

  UND_ERR_BODY_TIMEOUT UND_ERR_CONNECT_TIMEOUT UND_ERR_HEADERS_OVERFLOW UND_ERR_HEADERS_TIMEOUT UND_ERR_INFO
  UND_ERR_PRX_TLS UND_ERR_RES_CONTENT_LENGTH_MISMATCH UND_ERR_SOCKET UND_ERR_SOCKS5 HTTPParserError

  ERR_NETWORK ERR_BAD_RESPONSE ERR_READING_RESPONSE_STREAM ReadError ERR_BODY_PARSE_FAILURE request-timeout body-timeout
  StripeConnectionError StripeAPIError APIConnectionError
  PROTOCOL_CONNECTION_LOST PROTOCOL_SEQUENCE_TIMEOUT HANDSHAKE_SSL_ERROR ESOCKET
  MongoNetworkError MongoServerSelectionError
  MaxRetriesPerRequestError ClusterAllFailedError SocketClosedUnexpectedlyError RootNodesUnavailableError
  CIRCUIT_BREAKABLE_RESULT`)

function words(text: string): ReadonlySet<unknown> {
  return new Set(text.trim().split(/\s+/))
}
