/** The codes and names of single clients and databases, as their sources and manuals have them. */

import { describe, expect, it } from '@jest/globals'
import { isBreakableError } from '../../../src/failures/classification.ts'

const error = (properties: object, message = 'anything'): Error => Object.assign(new Error(message), properties)
const named = (name: string, properties: object = {}): Error => error({ name, ...properties })

const down: readonly [client: string, errors: readonly Error[]][] = [
  [
    'pg',
    ['08006', '53000', '53100', '53200', '53300', '53400', '57P01', '57P02', '57P03', '58030'].map((code) =>
      error({ code }),
    ),
  ],
  [
    'mysql2',
    [
      ...['ER_CON_COUNT_ERROR', 'ER_TOO_MANY_USER_CONNECTIONS', 'ER_USER_LIMIT_REACHED', 'ER_SERVER_SHUTDOWN'],
      ...['ER_OUT_OF_RESOURCES', 'ER_OUTOFMEMORY', 'ER_DISK_FULL', 'ER_CANT_CREATE_THREAD', 'ER_HOST_IS_BLOCKED'],
      ...['ER_HANDSHAKE_ERROR', 'ER_NEW_ABORTING_CONNECTION', 'PROTOCOL_PACKETS_OUT_OF_ORDER'],
    ].map((code) => error({ code })),
  ],
  [
    'mariadb',
    [
      error({ code: 'ER_UNKNOWN', sqlState: '08S01' }),
      ...[
        'ER_CONNECTION_TIMEOUT',
        'ER_SOCKET_UNEXPECTED_CLOSE',
        'ER_UNEXPECTED_PACKET',
        'ER_GET_CONNECTION_TIMEOUT',
      ].map((code) => error({ code })),
    ],
  ],
  ['postgres.js', ['CONNECT_TIMEOUT', 'CONNECTION_CLOSED'].map((code) => error({ code }))],
  [
    'mssql',
    [
      ...['ESOCKET', 'ETIMEOUT', 'EINSTLOOKUP'].map((code) => named('ConnectionError', { code })),
      ...[40_197, 40_501, 40_613, 49_918, 49_919, 49_920, 10_928, 10_929].map((number) =>
        named('RequestError', { code: 'EREQUEST', number }),
      ),
    ],
  ],
  [
    'oracledb',
    [
      ...[
        'NJS-040',
        'NJS-123',
        'NJS-500',
        'NJS-501',
        'NJS-503',
        'NJS-510',
        'NJS-511',
        'NJS-518',
        'NJS-521',
        'DPI-1067',
      ],
      ...['ORA-00018', 'ORA-00020', 'ORA-01033', 'ORA-01034', 'ORA-01089', 'ORA-03113', 'ORA-03135', 'ORA-12170'],
      ...[
        'ORA-12514',
        'ORA-12516',
        'ORA-12519',
        'ORA-12520',
        'ORA-12528',
        'ORA-12537',
        'ORA-12541',
        'ORA-12547',
        'ORA-27101',
      ],
    ].map((code) => error({ code })),
  ],
  [
    'Prisma',
    [
      ...['P1001', 'P1002', 'P1008', 'P1011', 'P1017', 'P2024', 'P2037'].map((code) => error({ code })),
      named('PrismaClientInitializationError', { errorCode: 'P1001' }),
    ],
  ],
  [
    'mongodb',
    [
      ...['MongoNetworkError', 'MongoNetworkTimeoutError', 'MongoServerSelectionError', 'MongoPoolClearedError'].map(
        (name) => named(name),
      ),
      named('MongooseServerSelectionError', { reason: { servers: new Map() } }),
      ...['ShutdownInProgress', 'PrimarySteppedDown', 'NotWritablePrimary', 'InterruptedAtShutdown'].map((codeName) =>
        named('MongoServerError', { code: 91, codeName }),
      ),
    ],
  ],
  [
    'cassandra-driver',
    [
      named('NoHostAvailableError', { innerErrors: { 'a:1': error({}) } }),
      named('OperationTimedOutError'),
      ...[0x1000, 0x1001, 0x1002, 0x1100, 0x1200].map((code) => named('ResponseError', { code })),
    ],
  ],
  [
    'neo4j-driver',
    ['ServiceUnavailable', 'SessionExpired', 'Neo.TransientError.General.DatabaseUnavailable'].map((code) =>
      named('Neo4jError', { code }),
    ),
  ],
  [
    'redis',
    [
      error({ name: 'ReplyError', command: {} }, 'LOADING Redis is loading the dataset in memory'),
      error({ name: 'SimpleError' }, 'CLUSTERDOWN The cluster is down'),
      error({ name: 'ReplyError' }, 'MASTERDOWN Link with MASTER is down'),
      named('ClientOfflineError'),
    ],
  ],
  [
    'knex, Sequelize and pools',
    [named('KnexTimeoutError'), named('SequelizeConnectionAcquireTimeoutError'), named('TimedOutError')],
  ],
  [
    'Sequelize, for reasons without a code',
    [named('SequelizeConnectionError', { parent: error({}), original: error({}) })],
  ],
  [
    '@elastic/elasticsearch',
    ['ConnectionError', 'NoLivingConnectionsError', 'TimeoutError'].map((name) => named(name)),
  ],
  [
    'kafkajs',
    [
      named('KafkaJSConnectionClosedError'),
      named('KafkaJSNumberOfRetriesExceeded', { cause: named('KafkaJSConnectionClosedError') }),
      named('KafkaJSNumberOfRetriesExceeded', { cause: error({}, 'Broker not connected') }),
      ...['BROKER_NOT_AVAILABLE', 'LEADER_NOT_AVAILABLE', 'NOT_ENOUGH_REPLICAS', 'REQUEST_TIMED_OUT'].map((type) =>
        named('KafkaJSProtocolError', { type, code: 5 }),
      ),
    ],
  ],
  ['nats', ['CONNECTION_REFUSED', 'TIMEOUT', 'DISCONNECT', '503'].map((code) => named('NatsError', { code }))],
  ['mqtt', [3, 136, 137, 139].map((code) => named('ErrorWithReasonCode', { code }))],
  [
    'nodemailer',
    [
      ...['ECONNECTION', 'EDNS', 'ETLS', 'EPROTOCOL'].map((code) => error({ code })),
      error({ code: 'EENVELOPE', responseCode: 421 }),
    ],
  ],
  ['basic-ftp', [named('FTPError', { code: 421 })]],
  ['@azure/cosmos', [error({ code: 503, headers: {} })]],
  [
    '@azure/service-bus',
    ['ServiceBusy', 'ServiceCommunicationProblem', 'ServiceTimeout'].map((code) => error({ code })),
  ],
  ['algoliasearch', [named('RetryError', { stackTrace: [{ response: { status: 0 } }] })]],
  [
    'firebase-admin',
    ['app/network-error', 'app/network-timeout', 'messaging/server-unavailable'].map((code) => error({ code })),
  ],
  ['AWS SDK 2', ['NetworkingError', 'TimeoutError'].map((code) => error({ code }))],
]

const notDown: readonly [client: string, errors: readonly Error[]][] = [
  ['pg', ['23505', '28P01', '3D000', '40001', '53500', '57014', '57P04'].map((code) => error({ code }))],
  [
    'mysql2',
    ['ER_DUP_ENTRY', 'ER_ACCESS_DENIED_ERROR', 'ER_LOCK_DEADLOCK'].map((code) =>
      error({ code, sqlState: '23000', fatal: true }),
    ),
  ],
  [
    'mssql',
    [
      named('ConnectionError', { code: 'ELOGIN' }),
      named('ConnectionError', { code: 'ECONNCLOSED' }),
      named('RequestError', { code: 'EREQUEST', number: 2_627 }),
    ],
  ],
  ['oracledb', ['ORA-00001', 'ORA-01017', 'ORA-12154', 'NJS-515'].map((code) => error({ code }))],
  ['Prisma', ['P1000', 'P1003', 'P2002', 'P2025'].map((code) => error({ code }))],
  ['mongodb', [named('MongoServerError', { code: 11_000, codeName: 'DuplicateKey' }), named('MongoNotConnectedError')]],
  [
    'cassandra-driver',
    [
      named('ResponseError', { code: 0x2000 }),
      named('NoHostAvailableError', { innerErrors: { 'a:1': named('AuthenticationError') } }),
    ],
  ],
  [
    'neo4j-driver',
    [named('Neo4jError', { code: 'Neo.ClientError.Statement.SyntaxError' }), error({ code: 'SessionExpired' })],
  ],
  ['redis', [error({ name: 'ReplyError' }, 'WRONGTYPE Operation against a key'), error({}, 'LOADING the page failed')]],
  [
    'Sequelize, with a wrong password or an unknown database',
    ['28P01', '3D000', 'ER_ACCESS_DENIED_ERROR'].map((code) =>
      named('SequelizeConnectionError', { parent: error({ code }) }),
    ),
  ],
  ['Sequelize, with invalid settings', [named('SequelizeInvalidConnectionError')]],
  [
    'kafkajs',
    [
      named('KafkaJSNumberOfRetriesExceeded', {
        cause: named('KafkaJSProtocolError', { type: 'UNKNOWN_TOPIC_OR_PARTITION', code: 3 }),
      }),
      named('KafkaJSConnectionError', { cause: named('KafkaJSSASLAuthenticationError') }),
    ],
  ],
  [
    'nats',
    [named('NatsError', { code: 'AUTHORIZATION_VIOLATION' }), error({ code: 'TIMEOUT' }), error({ code: '503' })],
  ],
  ['nodemailer', [error({ code: 'EAUTH', responseCode: 535 }), error({ code: 'EENVELOPE', responseCode: 550 })]],
  ['basic-ftp', [named('FTPError', { code: 550 })]],
  ['@azure/cosmos', [error({ code: 404, headers: {} }), error({ code: 503 })]],
  ['a retry of one’s own', [named('RetryError', { attempts: 3 })]],
  ['firebase-admin', ['auth/user-not-found', 'messaging/invalid-argument'].map((code) => error({ code }))],
]

describe('the codes of databases and clients', () => {
  it.each(down)('count where the service is down or full: %s', (_, errors) => {
    expect(errors.filter((each) => !isBreakableError(each))).toEqual([])
  })

  it.each(notDown)('pass where the caller is to blame: %s', (_, errors) => {
    expect(errors.filter((each) => isBreakableError(each))).toEqual([])
  })
})
