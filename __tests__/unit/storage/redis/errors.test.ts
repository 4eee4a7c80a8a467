import { describe, expect, it } from '@jest/globals'
import { parseCircuitRecord } from '../../../../src/storage/record.ts'
import { RedisCircuitStorage, type RedisClientLike } from '../../../../src/storage/redis/index.ts'
import { answering, open, pairs, rejectionOf, stored } from './answering-client.ts'

describe('an error', () => {
  it.each([
    ['NOAUTH Authentication required.', 'Redis wants a password'],
    ['ERR Protocol error: unauthenticated multibulk length', 'Redis wants a password'],
    ['WRONGPASS invalid username-password pair', 'does not accept the user or the password'],
    ["NOPERM this user has no permissions to run the 'evalsha' command", '+evalsha +eval +hgetall'],
    ["ERR The user executing the script can't run this command or subcommand script: 0", '+evalsha +eval +hgetall'],
    ["READONLY You can't write against a read only replica.", 'Connect to the primary'],
    ['LOADING Redis is loading the dataset in memory', 'recovers by itself'],
    ['BUSY Redis is busy running a script.', 'SCRIPT KILL'],
    ['MOVED 3999 127.0.0.1:6381', 'Pass a cluster client'],
    ['ASK 3999 127.0.0.1:6381', 'Pass a cluster client'],
    ['CLUSTERDOWN The cluster is down', 'CLUSTER INFO'],
    ['TRYAGAIN Multiple keys request during rehashing of slot', 'recovers by itself'],
    ["OOM command not allowed when used memory > 'maxmemory'.", 'maxmemory-policy'],
    ['MISCONF Redis is configured to save RDB snapshots', 'cannot save'],
    ['NOREPLICAS Not enough good replicas to write.', 'min-replicas-to-write'],
    ['MASTERDOWN Link with MASTER is down', 'Connect to the primary'],
    ['ERR max requests limit exceeded.', 'choose a larger plan'],
    ["ERR unknown command 'EVALSHA'", 'It has to be Redis 7 or later'],
    ['ERR something else', 'Redis refused it: ERR something else'],
    ['Command timed out', 'did not answer within commandTimeout'],
    ['connect ECONNREFUSED 127.0.0.1:6379', 'Redis could not be asked: connect ECONNREFUSED 127.0.0.1:6379'],
  ])('%p says what to do', async (message, advice) => {
    const error = await rejectionOf(answering(new Error(message)).storage.getState('stripe'))
    expect(error).toMatchObject({ operation: 'getState', service: 'stripe', corrupt: false, cause: { message } })
    expect(error.message).toContain('getState of "stripe" failed: ')
    expect(error.message).toContain(advice)
  })

  it.each([
    ...['BUSY', 'CLUSTERDOWN', 'LOADING', 'MASTERDOWN', 'MISCONF', 'NOREPLICAS', 'OOM', 'READONLY', 'TRYAGAIN'].map(
      (word) => [`${word} for a while`, 'throttled'],
    ),
    ['ERR max number of clients reached', 'throttled'],
    ['ERR max requests limit exceeded.', 'throttled'],
    ['ERR max daily request limit exceeded. Limit: 10000, Usage: 10000', 'throttled'],
    ['ERR max concurrent connections exceeded', 'throttled'],
    ['ERR DB capacity quota exceeded', 'throttled'],
    ...['ASK', 'DENIED', 'MOVED', 'NOAUTH', 'NOPERM', 'WRONGPASS'].map((word) => [`${word} for ever`, 'misconfigured']),
    ['ERR Protocol error: unauthenticated multibulk length', 'misconfigured'],
    [
      "ERR The user executing the script can't run this command or subcommand script: 0, on @user_script:3.",
      'misconfigured',
    ],
    ['WRONGTYPE Operation against a key holding the wrong kind of value', 'misconfigured'],
    ["ERR unknown command 'EVALSHA'", 'misconfigured'],
    ['ERR no upstream host', 'unavailable'],
    ['UNKILLABLE Sorry', 'unavailable'],
    ['Command timed out', 'unavailable'],
    ['connect ECONNREFUSED 127.0.0.1:6379', 'unavailable'],
  ])('%p tells whether waiting helps', async (message, kind) => {
    expect(await rejectionOf(answering(new Error(message)).storage.getState('stripe'))).toMatchObject({ kind })
  })

  it.each([
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'the server speaks no TLS on this port. Use redis:// in place of rediss://'],
    ['ERR_SSL_PACKET_LENGTH_TOO_LONG', 'the server speaks no TLS on this port. Use redis:// in place of rediss://'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'the certificate of the server is not accepted (ERR_TLS_CERT_ALTNAME_INVALID).'],
    ['CERT_HAS_EXPIRED', 'the certificate of the server is not accepted (CERT_HAS_EXPIRED).'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'put its authority into tls.ca of the options'],
  ])('of TLS says what to do, and that waiting does not help: %s', async (code, advice) => {
    const reason = Object.assign(new Error('write EPROTO'), { code })
    const error = await rejectionOf(answering(reason).storage.getState('stripe'))
    expect(error.kind).toBe('misconfigured')
    expect(error.message).toContain(advice)
  })

  it('about too many connections says what to do', async () => {
    const error = await rejectionOf(
      answering(new Error('ERR max number of clients reached')).storage.getState('stripe'),
    )
    expect(error.message).toContain('Raise maxclients')
  })

  it('at a deletion names what it was asked', async () => {
    const { storage } = answering(new Error('ERR something else'))
    await expect(storage.clearState('stripe')).rejects.toThrow(
      'clearState of "stripe" failed: Redis refused it: ERR something else',
    )
  })

  it('about a value that is no hash is about damage', async () => {
    const wrong = new Error('WRONGTYPE Operation against a key holding the wrong kind of value')
    const error = await rejectionOf(answering(wrong).storage.getState('stripe'))
    expect(error).toMatchObject({ corrupt: true, service: 'stripe', cause: { message: wrong.message } })
    expect(error.message).toContain('The record stored for "stripe" is damaged: its key holds a value that is no hash.')
    expect(error.message).toContain('choose another keyPrefix')
  })

  it('keeps what a connection failed with, but not the command and its arguments', async () => {
    const failure = Object.assign(new Error('connect ECONNREFUSED'), {
      name: 'SocketError',
      code: 'ECONNREFUSED',
      port: 6379,
      command: { name: 'auth', args: ['breaker', 'SECRET'] },
      lastNodeError: new Error('SECRET'),
    })
    const { cause } = await rejectionOf(answering(failure).storage.getState('stripe'))
    expect(cause).toMatchObject({ name: 'SocketError', code: 'ECONNREFUSED', port: 6379 })
    expect(Object.keys(cause as object).sort()).toEqual(['code', 'name', 'port'])
  })

  it('does not repeat what an old server repeats of a command that it does not know', async () => {
    const unknown = new Error(
      'ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `breaker`, `SECRET`, ',
    )
    const error = await rejectionOf(answering(unknown).storage.getState('stripe'))
    expect(`${error.stack} ${(error.cause as Error).stack}`).not.toContain('SECRET')
    expect(error.message).toContain('ERR unknown command `HELLO`')
  })

  it.each([
    ['nothing', { code: 'ETIMEDOUT' }, 'Redis could not be asked: [object Object]'],
    ['no text', Object.assign(new Error(''), { code: 'ETIMEDOUT' }), 'Redis could not be asked: ETIMEDOUT'],
    ['no text and no code', new Error(''), 'Redis could not be asked: Error'],
    ['what is no error', undefined, 'Redis could not be asked: undefined'],
  ])('that says %s is reported all the same', async (_, reason, message) => {
    const client: RedisClientLike = { call: () => Promise.reject(reason) }
    const error = await rejectionOf(new RedisCircuitStorage({ client }).getState('stripe'))
    expect(error.message).toContain(message)
  })

  it.each([
    ['hgetall', undefined],
    ['hgetall', 'OK'],
    ['evalsha', 'OK'],
    ['evalsha', [1, 'OK']],
    ['evalsha', null],
  ])('tells of a client whose reply to %s is %p', async (command, reply) => {
    const { storage } = answering(reply)
    const operation =
      command === 'hgetall' ? storage.getState('stripe') : storage.compareAndSetState('stripe', undefined, open)
    const name = command === 'hgetall' ? 'getState' : 'compareAndSetState'
    await expect(operation).rejects.toMatchObject({
      corrupt: false,
      operation: name,
      service: 'stripe',
      message: `${name} of "stripe" failed: the client's reply is not what Redis sent. Its call must resolve to the reply as it is: lists as arrays, texts as strings.`,
    })
  })

  it.each([
    ['failureCount', 'three'],
    ['failureCount', '0x3'],
    ['failureCount', '1e3'],
    ['failureCount', ''],
    ['retryAt', ' 1'],
    ['leases', '[{'],
    ['transitions', '{}'],
    ['lastFailure', '"x"'],
    ['state', 'AJAR'],
  ])('is left to the check of the record where a field is damaged: %s is %p', async (field, text) => {
    const damaged = Object.entries({ ...Object.fromEntries(pairs(stored)), [field]: text }).flat()
    const { storage } = answering(damaged)
    const record = await storage.getState('stripe')
    expect(() => parseCircuitRecord('stripe', record, 'getState')).toThrow(`is damaged: ${field} is`)
  })
})
