/**
 * The codes, names and types with which systems and clients report that a service fails.
 *
 * @module
 */

/** The codes of a breaker's own errors for calls that it did not start. */
export const NOT_ATTEMPTED: ReadonlySet<unknown> = words(
  'CIRCUIT_OPEN CIRCUIT_CONCURRENCY_LIMIT CIRCUIT_UNKNOWN_SERVICE CIRCUIT_CONFIGURATION CIRCUIT_STORAGE',
)

/** UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
export const BREAKABLE_GRPC: ReadonlySet<unknown> = new Set([2, 4, 13, 14])

/**
 * The statuses that an application chooses, so that they show a service that works: INVALID_ARGUMENT, NOT_FOUND,
 * ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED.
 */
export const ANSWERING_GRPC: ReadonlySet<unknown> = new Set([3, 5, 6, 7, 9, 10, 11, 12, 16])

/** The statuses from 400 to 499 that mean "not now": the service may be healthy or overloaded. */
export const UNDECIDED_STATUSES: ReadonlySet<unknown> = new Set([408, 425, 429])

/** Names and codes of AWS that mean the same with another status, usually 400: the names in its SDK, and similar ones. */
export const THROTTLING: RegExp =
  /Throttl|(Limit|Throughput)Exceeded|TooManyRequests|SlowDown|PriorRequestNotComplete|TransactionInProgress|RequestTimeout/

/**
 * The classes of SQLSTATE with which a server refuses a statement: cardinality, data, constraints, authorization,
 * unknown database, rollback (a deadlock), syntax and access, views, `RAISE`.
 */
export const ANSWERING_SQLSTATES: RegExp = /^(2[1238]|3D|4[024]|P0)[\dA-Z]{3}$/

/** Codes of a violated constraint: Oracle's, and Prisma's for any database. */
export const ANSWERS: ReadonlySet<unknown> = words('ORA-00001 P2002 P2003 P2025')

/** Answers as pairs (see below): of Redis; a duplicate in MongoDB; in SQL Server NOT NULL, a foreign key, a duplicate. */
export const ANSWERING_PAIRS: RegExp =
  /^((Reply|Simple)Error:(WRONGTYPE|NOSCRIPT|NOAUTH|NOPERM|WRONGPASS|EXECABORT|BUSYGROUP)|Mongo\w+:11000|EREQUEST:(515|547|2601|2627))$/

/** DNS, Node's HTTP parser, TLS and certificates (https://nodejs.org/api/tls.html#x509-certificate-error-codes), Firebase, timeouts. */
const FAMILIES =
  /^(EAI_|HPE_|ERR_SSL_|ERR_TLS_(CERT|DH|HANDSHAKE)_|(ERROR_IN_)?(CERT|CRL)_|UNABLE_TO_(GET_(CRL|ISSUER)|VERIFY_LEAF|DECODE_I|DECRYPT_C)|[a-z-]+\/(network-|server-unavailable|internal-error))|Timed?[oO]ut(Error|Exception)$/

/**
 * Databases that are down, out of resources or out of connections: SQLSTATE
 * (https://www.postgresql.org/docs/current/errcodes-appendix.html), Prisma
 * (https://www.prisma.io/docs/orm/reference/error-reference), MySQL and MariaDB, Oracle and its driver.
 */
const DATABASES =
  /^(08[\dA-Z]{3}|53[0-4]00|57P0[123]|58030|P1(00[128]|01[17])|P20(24|37)|ER_(CON_COUNT_ERROR|TOO_MANY_USER_CONNECTIONS|USER_LIMIT_REACHED|(SERVER|NORMAL)_SHUTDOWN|OUT_?OF_?(RESOURCES|MEMORY)|DISK_FULL|CANT_CREATE_THREAD|HOST_IS_BLOCKED|HANDSHAKE_ERROR|NEW_ABORTING_CONNECTION|(GET_)?CONNECTION_TIMEOUT|SOCKET_\w+|UNEXPECTED_PACKET)|ORA-(000(18|20)|010(3[34]|89|9[02])|031(1[34]|35)|12(153|170|5(1[469]|2[068]|37|4[1357]|60|7[01]))|27101)|NJS-(040|123|5(0[01345678]|1[0138]|21))|DPI-10(67|80))$/

/**
 * Pairs for codes that prove nothing by themselves: the name of the error and its code, or the code and its number. They are of
 * Azure's SDKs, Neo4j, NATS, Cassandra, MQTT, SQL Server in Azure, SMTP, FTP and Redis. In the protocol of Redis the first word of
 * a message is the code.
 */
export const BREAKABLE_PAIRS: RegExp =
  /^(RestError:(PARSE|REQUEST_SEND)_ERROR|Neo4jError:(ServiceUnavailable|SessionExpired|.+\.DatabaseUnavailable)|NatsError:(CONNECTION_REFUSED|TIMEOUT|DISCONNECT|503)|ResponseError:(409[678]|4352|4608)|ErrorWithReasonCode:(3|13[679])|EREQUEST:(40(197|501|613)|4991[89]|49920|1092[89])|(E[A-Z]+|FTPError):421|(Reply|Simple)Error:(LOADING|CLUSTERDOWN|MASTERDOWN))$/

/**
 * Names of errors that report only a failed connection. The reason may also be a wrong password. Such a name counts if the error
 * gives no other reason.
 */
export const CONNECTION: RegExp =
  /(?<!Invalid)(Connection(Closed|Lost|Refused)?|NoLivingConnections|Network|NoHostAvailable|ServerSelection)Error$|NumberOfRetriesExceeded$/

/**
 * The other codes, names and types that count: the system and DNS, Node, certificates, undici, single clients, then databases and
 * brokers. The list omits codes of the caller's own mistakes (`UND_ERR_INVALID_ARG`, `ERR_HTTP2_HEADERS_SENT`) on purpose.
 */
const BREAKABLE = words(`
  ECONNABORTED ECONNREFUSED ECONNRESET EPIPE EPROTO ETIMEDOUT EADDRNOTAVAIL EHOSTDOWN EHOSTUNREACH ENETDOWN ENETRESET
  ENETUNREACH ESOCKETTIMEDOUT ENOTFOUND ENODATA EBADRESP EREFUSED ESERVFAIL ETIMEOUT

  ERR_SOCKET_CONNECTION_TIMEOUT ERR_STREAM_PREMATURE_CLOSE ERR_PROXY_TUNNEL ERR_HTTP2_ERROR ERR_HTTP2_GOAWAY_SESSION
  ERR_HTTP2_PING_CANCEL ERR_HTTP2_SESSION_ERROR ERR_HTTP2_STREAM_CANCEL ERR_HTTP2_STREAM_ERROR

  DEPTH_ZERO_SELF_SIGNED_CERT SELF_SIGNED_CERT_IN_CHAIN HOSTNAME_MISMATCH INVALID_CA INVALID_PURPOSE
  PATH_LENGTH_EXCEEDED

  UND_ERR_BODY_TIMEOUT UND_ERR_CONNECT_TIMEOUT UND_ERR_HEADERS_OVERFLOW UND_ERR_HEADERS_TIMEOUT UND_ERR_INFO
  UND_ERR_PRX_TLS UND_ERR_RES_CONTENT_LENGTH_MISMATCH UND_ERR_SOCKET UND_ERR_SOCKS5 HTTPParserError

  ERR_NETWORK ERR_BAD_RESPONSE ERR_READING_RESPONSE_STREAM ReadError ERR_BODY_PARSE_FAILURE request-timeout body-timeout
  StripeConnectionError StripeAPIError APIConnectionError
  ECONNECTION EDNS ETLS EPROTOCOL NetworkingError

  PROTOCOL_CONNECTION_LOST PROTOCOL_PACKETS_OUT_OF_ORDER PROTOCOL_SEQUENCE_TIMEOUT HANDSHAKE_SSL_ERROR
  ESOCKET EINSTLOOKUP CONNECT_TIMEOUT CONNECTION_CLOSED
  MongoNetworkError MongoServerSelectionError MongoPoolClearedError
  HostUnreachable NetworkTimeout ShutdownInProgress PrimarySteppedDown NotWritablePrimary NotPrimaryNoSecondaryOk
  NotPrimaryOrSecondary InterruptedAtShutdown InterruptedDueToReplStateChange NetworkInterfaceExceededTimeLimit
  BROKER_NOT_AVAILABLE LEADER_NOT_AVAILABLE GROUP_COORDINATOR_NOT_AVAILABLE NOT_ENOUGH_REPLICAS NETWORK_EXCEPTION
  REQUEST_TIMED_OUT
  MaxRetriesPerRequestError ClusterAllFailedError SocketClosedUnexpectedlyError RootNodesUnavailableError
  ClientOfflineError ServiceBusy ServiceCommunicationProblem ServiceTimeout ServerBusyError ServiceCommunicationError
  CIRCUIT_BREAKABLE_RESULT`)

/** Whether a code, a name or a type counts by itself. */
export function isBreakable(word: unknown): boolean {
  return BREAKABLE.has(word) || (typeof word === 'string' && (FAMILIES.test(word) || DATABASES.test(word)))
}

function words(text: string): ReadonlySet<unknown> {
  return new Set(text.trim().split(/\s+/))
}
