import { createHash } from 'node:crypto'
import { describe, expect, it, jest } from '@jest/globals'
import type { CircuitRecord } from '../../../../src/storage/contract.ts'
import { RedisCircuitStorage } from '../../../../src/storage/redis/index.ts'
import {
  answering,
  at,
  lifetime,
  noScript,
  open,
  outcomes,
  pairs,
  pipelining,
  rejectionOf,
  stored,
} from './answering-client.ts'

describe('the commands', () => {
  it('read one hash', async () => {
    const { storage, commands } = answering(stored)
    await expect(storage.getState('stripe')).resolves.toEqual(open)
    expect(commands).toEqual([['hgetall', 'circuit:stripe']])
  })

  it('use the prefix that is given, and the service key as it is', async () => {
    const { client, commands } = answering([])
    const storage = new RedisCircuitStorage({ client, keyPrefix: 'app:{x}:' })
    await expect(storage.getState('a}{b #%')).resolves.toBeUndefined()
    await storage.clearState('a}{b #%')
    expect(commands).toEqual([
      ['hgetall', 'app:{x}:a}{b #%'],
      ['del', 'app:{x}:a}{b #%'],
    ])
  })

  it.each([
    ['a list of names and values', stored],
    ['an object', Object.fromEntries(pairs(stored))],
    ['a map', new Map(pairs(stored))],
    ['buffers', stored.map((text) => Buffer.from(text))],
  ])('understand a hash that comes as %s', async (_, reply) => {
    await expect(answering(reply).storage.getState('stripe')).resolves.toEqual(open)
  })

  it('add by a script, with the version, the id, the instant and what is added to each count', async () => {
    const { storage, commands } = answering([1, stored])
    const result = await storage.addOutcomes('stripe', 'v2', { ...outcomes, id: 'i"1\n' })
    expect(result).toEqual({ applied: true, current: open })
    const [[name, sha, keys, key, ...args] = []] = commands
    expect([name, sha, keys, key]).toEqual(['evalsha', expect.stringMatching(/^[0-9a-f]{40}$/), '1', 'circuit:stripe'])
    expect(args).toEqual(['=v2', 'i\\"1\\n', String(at), '1', '2', '3', '0', '1'])
  })

  it('replace by a script, with the version before and after, what to remove and what to set', async () => {
    const { storage, commands } = answering([0, []])
    const result = await storage.compareAndSetState('stripe', 'v1', { ...open, leases: [] })
    expect(result).toEqual({ applied: false, current: undefined })
    const [[name, , keys, key, ...args] = []] = commands
    expect([name, keys, key]).toEqual(['evalsha', '1', 'circuit:stripe'])
    expect(args.slice(0, 2)).toEqual(['=v1', '=v2'])
    expect(args.slice(3, 10)).toEqual(['6', 'suspectedAt', 'pace', 'othersAt', 'closedAt', 'override', 'additions'])
    expect(args.slice(10)).toEqual(stored.map((text) => (text.startsWith('[{') ? '[]' : text)))
  })

  it('keep a record for two days after the last instant in it, by whichever clock is behind, and an override for ever', async () => {
    jest.useFakeTimers({ now: at + 1_000 })
    try {
      const { storage, commands } = answering([1, stored])
      const lived = async (record: Partial<CircuitRecord>): Promise<string | undefined> => {
        await storage.compareAndSetState('stripe', undefined, { ...open, ...record })
        return commands.at(-1)?.[6]
      }
      await expect(lived({})).resolves.toBe(lifetime)
      await expect(lived({ updatedAt: at + 1_500 })).resolves.toBe(String(Number(lifetime) + 500))
      await expect(lived({ updatedAt: 0, retryAt: 90_000.5, leases: [] })).resolves.toBe('172890001')
      await expect(lived({ override: { state: 'OPEN', at } })).resolves.toBe('')
    } finally {
      jest.useRealTimers()
    }
  })

  it('tell no version from one that is empty', async () => {
    const { storage, commands } = answering([0, []])
    await storage.compareAndSetState('stripe', '', open)
    await storage.compareAndSetState('stripe', undefined, open)
    expect(commands.map((command) => command[4])).toEqual(['=', ''])
  })

  it('carry the script itself where the server does not know it', async () => {
    const { storage, commands } = answering(noScript, [1, stored])
    await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({ applied: true, current: open })
    const [first = [], second = []] = commands
    expect(commands).toHaveLength(2)
    expect(second[0]).toBe('eval')
    expect(createHash('sha1').update(String(second[1])).digest('hex')).toBe(first[1])
    expect(second.slice(2)).toEqual(first.slice(2))
  })

  it('are scripts of less than two kilobytes, which touch nothing but the key that they are given', async () => {
    const { storage, commands } = answering(noScript, [1, stored], noScript, [1, stored])
    await storage.compareAndSetState('stripe', 'v1', open)
    await storage.addOutcomes('stripe', 'v1', outcomes)
    for (const [, source = ''] of [commands[1] ?? [], commands[3] ?? []]) {
      expect(source.length).toBeLessThan(2_000)
      expect(source).not.toMatch(/KEYS\[2\]|TIME|RANDOM/)
      for (const [, key] of source.matchAll(/redis\.call\('\w+', (\w+)/g)) expect(key).toBe('key')
    }
  })
})

describe('a batch', () => {
  const [first, second] = [
    { serviceKey: 'a', version: undefined, next: open },
    { serviceKey: 'b', version: 'v1', next: open },
  ] as const

  it('is one pipeline, with one command for each circuit', async () => {
    const { storage, commands, pipelines } = pipelining((command: readonly string[]) =>
      command[0] === 'hgetall' ? (command[1] === 'circuit:b' ? [] : stored) : [1, stored],
    )
    await expect(storage.batchGetState(['a', 'b', 'a'])).resolves.toEqual(new Map([['a', open]]))
    await storage.batchSetState([first, second])
    await storage.batchClearState(['a', 'b', 'b'])
    expect(pipelines).toEqual([2, 2, 2])
    expect(commands.map(([name]) => name)).toEqual(['hgetall', 'hgetall', 'evalsha', 'evalsha', 'del', 'del'])
  })

  it('of nothing asks for nothing, and of one circuit is no pipeline', async () => {
    const { storage, commands, pipelines } = pipelining(stored)
    await expect(storage.batchGetState([])).resolves.toEqual(new Map())
    await expect(storage.batchSetState([])).resolves.toEqual(new Map())
    await storage.batchClearState([])
    expect(commands).toEqual([])
    await storage.batchGetState(['a', 'a'])
    expect(pipelines).toEqual([])
  })

  it('is sent once more, with the scripts, for the circuits whose server did not know them', async () => {
    const { storage, commands, pipelines } = pipelining([1, stored], noScript, noScript, [0, []], [1, stored])
    const third = { serviceKey: 'c', version: undefined, next: open }
    await expect(storage.batchSetState([first, second, third])).resolves.toEqual(
      new Map([
        ['a', { applied: true, current: open }],
        ['b', { applied: false, current: undefined }],
        ['c', { applied: true, current: open }],
      ]),
    )
    expect(pipelines).toEqual([3, 2])
    expect(commands.slice(3).map((command) => [command[0], command[3]])).toEqual([
      ['eval', 'circuit:b'],
      ['eval', 'circuit:c'],
    ])
  })

  it.each([
    ['to a client without pipelines', () => answering(stored)],
    [
      'to a cluster',
      () => {
        const cluster = pipelining(stored)
        return { ...cluster, storage: new RedisCircuitStorage({ client: { ...cluster.client, isCluster: true } }) }
      },
    ],
  ])('is sent as single commands at once %s', async (_, make) => {
    const { storage, commands } = make()
    const reading = storage.batchGetState(['a', 'b', 'c'])
    await Promise.resolve().then(() => {})
    await new Promise(setImmediate)
    expect(commands).toHaveLength(3)
    await expect(reading).resolves.toEqual(new Map(['a', 'b', 'c'].map((key) => [key, open])))
  })

  it('that fails in part hands out the rest, a record that is none among it', async () => {
    const { storage } = pipelining(stored, new Error('CLUSTERDOWN Hash slot not served'), ['schema', '2'])
    const error = await rejectionOf(storage.batchGetState(['a', 'b', 'c']))
    expect(error).toMatchObject({ name: 'CircuitStorageError', operation: 'batchGetState', corrupt: false })
    expect(error.message).toMatch(/^batchGetState failed for 1 of 3 circuits; "b": batchGetState of "b" failed:/)
    expect(error.results).toEqual(
      new Map<string, unknown>([
        ['a', open],
        ['c', { schema: 2 }],
      ]),
    )
    expect([...(error.errors ?? [])]).toMatchObject([['b', { service: 'b', corrupt: false, kind: 'throttled' }]])
  })

  it('fails for every circuit that the client leaves without a reply', async () => {
    const silent = { ...answering([]).client, pipeline: () => ({ exec: async () => null }) }
    const error = await rejectionOf(new RedisCircuitStorage({ client: silent }).batchClearState(['a', 'b']))
    expect([...(error.errors?.keys() ?? [])]).toEqual(['a', 'b'])
    expect(error).toMatchObject({
      operation: 'batchClearState',
      errors: new Map([
        ['a', expect.anything()],
        ['b', expect.anything()],
      ]),
    })
    expect(error.message).toContain('left the command without a reply')
  })

  it('fails for every circuit when the client throws', async () => {
    const pipeline = () => {
      throw new Error('closed')
    }
    const broken = { ...answering([]).client, pipeline }
    const error = await rejectionOf(new RedisCircuitStorage({ client: broken }).batchGetState(['a', 'b']))
    expect([...(error.errors?.keys() ?? [])]).toEqual(['a', 'b'])
  })

  it('refuses to write one circuit twice, and writes nothing', async () => {
    const { storage, commands } = pipelining([1, stored])
    const error = await rejectionOf(storage.batchSetState([first, second, first]))
    expect(error.message).toBe('batchSetState was given "a" twice, and wrote nothing: give each circuit once.')
    expect(error).toMatchObject({ operation: 'batchSetState', service: 'a' })
    expect(commands).toEqual([])
  })
})
