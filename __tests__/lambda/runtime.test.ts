import { readFile } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { expectAtLeast, outlast, patience, waitFor } from '../support/time.ts'
import { type Clock, startClock } from './clock.ts'
import { type ExecutionEnvironment, InitError, startEnvironment } from './environment.ts'
import { deploy } from './platform.ts'

/** Stands still but for what a test lets pass. */
let clock: Clock

beforeEach(() => {
  clock = startClock()
})

afterEach(() => clock[Symbol.dispose]())

/** Resolves when the process has written so many such lines. */
async function written({ logs }: ExecutionEnvironment, message: string, count = 1): Promise<void> {
  await waitFor(
    `"${message}" is written ${count} times`,
    () => logs.map((line) => line.message),
    (messages) => messages.filter((each) => each === message).length >= count,
  )
}

describe('an execution environment', () => {
  it('answers with what the handler returns, in an environment like Lambda’s', async () => {
    await using environment = await startEnvironment({
      handler: 'runtime.echo',
      functionName: 'greeter',
      variables: { GREETING: 'hello' },
    })

    const first = await environment.invoke({ some: 'event' })
    const second = await environment.invoke()

    expect(first.outcome).toBe('response')
    expect(first.payload).toMatchObject({
      event: { some: 'event' },
      invocations: 1,
      requestId: first.requestId,
      functionName: 'greeter',
      arn: expect.stringMatching(/:function:greeter$/),
      region: 'eu-central-1',
      greeting: 'hello',
      node: process.versions.node,
    })
    expect(first.payload).not.toHaveProperty('options')
    expect(first.logs).toEqual([
      { text: expect.any(String), requestId: first.requestId, level: 'INFO', message: 'invoked 1' },
    ])
    expect(second.payload).toMatchObject({ event: null, invocations: 2 })
    expect(second.logs.map(({ message }) => message)).toEqual(['invoked 2'])
    expectAtLeast(environment.initDuration, 10)
    // By the real clock.
    const { remaining } = first.payload as { remaining: number }
    expect(remaining).toBeLessThanOrEqual(patience)
    expect(remaining).toBeGreaterThan(0)
  })

  it('tells the handler how much time is left', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.wait', timeout: 2_000, clock })

    const usual = environment.invoke({ for: 100 })
    await written(environment, 'waiting')
    clock.pass(100)
    expect((await usual).payload).toMatchObject({ remaining: 1_900 })

    const shorter = environment.invoke({ for: 100 }, { timeout: 500 })
    await written(environment, 'waiting', 2)
    clock.pass(100)
    expect((await shorter).payload).toMatchObject({ remaining: 400 })
  })

  it('reports what the handler throws', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.fail' })

    const { outcome, error, payload } = await environment.invoke({ message: 'as told' })

    expect(outcome).toBe('error')
    expect(error).toMatchObject({ errorType: 'TypeError', errorMessage: 'as told' })
    expect(payload).toEqual(error)
    expect(environment.exit()).toBeUndefined()
  })

  it('reports a handler that cannot be loaded', async () => {
    const started = startEnvironment({ handler: 'broken.handler' })

    await expect(started).rejects.toBeInstanceOf(InitError)
    await expect(started).rejects.toMatchObject({
      reported: { errorType: 'SetUpError', errorMessage: 'no database at hand' },
    })
  })

  it('kills the process at the deadline', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.wait', timeout: 300, clock })

    const invocation = environment.invoke({ for: 299 })
    await written(environment, 'waiting')
    clock.pass(299)
    expect((await invocation).outcome).toBe('response')
    const doomed = environment.invoke({ for: 301 })
    await written(environment, 'waiting', 2)
    clock.pass(300)
    const { outcome, logs } = await doomed

    expect(outcome).toBe('killed')
    expect(logs.map(({ message }) => message)).toEqual(['waiting'])
    expect(environment.exit()).toEqual({ code: null, signal: 'SIGKILL' })
    await expect(environment.invoke()).rejects.toThrow('The environment has ended: killed by SIGKILL')
  })

  it('kills a process at the deadline that has answered but never asks for the next event', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.stream', timeout: 300, clock })

    const { outcome, body } = await environment.invoke(
      { pieces: ['answered'], lingers: true },
      { onChunk: () => clock.pass(30), onAnswer: () => clock.pass(270) },
    )

    expect([outcome, body]).toEqual(['response', 'answered'])
    expect(environment.exit()).toEqual({ code: null, signal: 'SIGKILL' })
  })

  it('says when the process ended by itself', async () => {
    await using exiting = await startEnvironment({ handler: 'runtime.exit' })
    await using rejecting = await startEnvironment({ handler: 'runtime.rejectUnhandled' })

    expect(await exiting.invoke({ code: 7 })).toMatchObject({ outcome: 'exited' })
    const rejected = await rejecting.invoke()

    expect(exiting.exit()).toEqual({ code: 7, signal: null })
    expect(rejected.outcome).toBe('exited')
    expect(rejected.logs.map(({ text }) => text).join()).toContain('nobody handles this')
    expect(rejecting.exit()).toEqual({ code: 1, signal: null })
  })

  it('makes no progress between invocations', async () => {
    await using frozen = await startEnvironment({ handler: 'runtime.tick' })
    await using running = await startEnvironment({ handler: 'runtime.tick', freezes: false })
    await Promise.all([frozen.invoke(), running.invoke()])

    const before = [await cpuTime(frozen.pid), frozen.logs.length]
    const count = running.logs.length
    await waitFor('the other one has counted on', () => running.logs.length > count + 40)
    const after = [await cpuTime(frozen.pid), frozen.logs.length]
    const [, ofRunning] = await Promise.all([frozen.invoke(), running.invoke()])

    expect(after).toEqual(before)
    expect(ofRunning.payload).toBeGreaterThan(40)
    // And goes on when it is thawed.
    expect(frozen.logs.length).toBeGreaterThan(after[1] as number)
  })

  it('can be frozen in the middle of an invocation, and goes on when it is thawed', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.wait', clock })

    const invocation = environment.invoke({ for: 100 })
    await written(environment, 'waiting')
    await environment.freeze()
    const before = await cpuTime(environment.pid)
    clock.pass(100)
    await outlast(100)
    expect(await cpuTime(environment.pid)).toBe(before)
    expect(environment.logs.map(({ message }) => message)).toEqual(['waiting'])
    await environment.thaw()
    const { outcome } = await invocation

    expect(outcome).toBe('response')
  })

  it('ends at once by SIGTERM when the handler does not listen, and may clean up when it does', async () => {
    const deaf = await startEnvironment({ handler: 'runtime.echo' })
    const clean = await startEnvironment({ handler: 'runtime.graceful' })
    const slow = await startEnvironment({ handler: 'runtime.graceful', clock })
    await Promise.all([clean.invoke({ takes: 50 }), slow.invoke({ takes: 10_000 })])

    const grace = 300
    const ending = slow.shutdown({ grace })
    await written(slow, 'cleaning up')
    clock.pass(grace)
    const [ofDeaf, ofClean, ofSlow] = await Promise.all([
      deaf.shutdown({ grace: patience }),
      clean.shutdown({ grace: patience }),
      ending,
    ])

    expect(ofDeaf).toMatchObject({ code: null, signal: 'SIGTERM' })
    expect(ofClean).toMatchObject({ code: null, signal: 'SIGTERM' })
    expect(clean.logs.map(({ message }) => message)).toEqual(['cleaning up', 'clean'])
    expect(ofSlow).toMatchObject({ code: null, signal: 'SIGKILL' })
    expect(slow.logs.map(({ message }) => message)).toEqual(['cleaning up'])
  })

  it('does not end by process.exit while it waits for an invocation, because the runtime client’s thread does not', async () => {
    const environment = await startEnvironment({ handler: 'runtime.graceful', clock })
    await environment.invoke({ takes: 1, exits: true })

    const grace = 500
    const ending = environment.shutdown({ grace })
    await written(environment, 'clean')
    // Time enough for a process that could end.
    await outlast(300)
    clock.pass(grace)
    const { signal } = await ending

    expect(environment.logs.map(({ message }) => message)).toEqual(['cleaning up', 'clean'])
    expect(signal).toBe('SIGKILL')
  })

  it('ends without a warning when it has no extensions', async () => {
    const environment = await startEnvironment({ handler: 'runtime.graceful' })
    await environment.invoke({ takes: 1 })

    const { signal } = await environment.shutdown({ grace: 0 })

    expect(environment.logs).toEqual([])
    expect(signal).toBe('SIGKILL')
  })

  it('streams a response', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.stream', clock })
    const seen: string[] = []
    // The next piece is not written before this one was seen.
    const onChunk = ({ text }: { readonly text: string }) => {
      seen.push(text)
      clock.pass(30)
    }

    const result = await environment.invoke({ pieces: ['one', 'two', 'three'] }, { onChunk })

    expect(result).toMatchObject({ outcome: 'response', body: 'onetwothree', contentType: 'application/octet-stream' })
    expect(result.chunks.map(({ text }) => text)).toEqual(['one', 'two', 'three'])
    expect(seen).toEqual(['one', 'two', 'three'])
    expect((await environment.invoke({ pieces: ['again'] }, { onChunk })).body).toBe('again')
  })

  it('reports an error and a kill in the middle of a streamed response', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.stream', timeout: 500, clock })

    const failed = await environment.invoke({ pieces: ['half'], fails: 'as told' }, { onChunk: () => clock.pass(30) })
    const killed = await environment.invoke({ pieces: ['half'], hangs: true }, { onChunk: () => clock.pass(500) })

    expect(failed).toMatchObject({
      outcome: 'error',
      body: 'half',
      error: { errorType: 'RangeError', errorMessage: 'as told' },
    })
    expect(killed).toMatchObject({ outcome: 'killed', body: 'half' })
  })
})

describe('an execution environment with concurrent invocations', () => {
  it('runs them at once in one thread', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.wait', maxConcurrency: 5, clock })

    const invocations = [1, 2, 3, 4, 5].map((number) => environment.invoke({ for: 300 }, { timeout: 1_000 * number }))
    await written(environment, 'waiting', 5)
    clock.pass(300)
    const results = await Promise.all(invocations)

    const payloads = results.map(({ payload }) => payload as { remaining: number; threadId: number })
    expect(payloads).toEqual(results.map(({ requestId }) => expect.objectContaining({ requestId })))
    expect(payloads.map(({ remaining }) => remaining)).toEqual([700, 1_700, 2_700, 3_700, 4_700])
    expect(new Set(payloads.map(({ threadId }) => threadId)).size).toBe(1)
    for (const { logs } of results) expect(logs.map(({ message }) => message)).toEqual(['waiting', 'waited'])
  })

  it('runs them in several threads, which share nothing', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.wait', maxConcurrency: 10, workers: 2, clock })

    const invocations = Array.from({ length: 6 }, () => environment.invoke({ for: 300 }))
    await written(environment, 'waiting', 6)
    clock.pass(300)
    const results = await Promise.all(invocations)

    expect(new Set(results.map(({ payload }) => (payload as { threadId: number }).threadId)).size).toBe(2)
  })

  it('has threads to spare for files and host names, however many wait for invocations', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.read', maxConcurrency: 10, workers: 4 })

    const results = await Promise.all(Array.from({ length: 8 }, () => environment.invoke()))

    expect(results.map(({ outcome }) => outcome)).toEqual(Array.from({ length: 8 }, () => 'response'))
  })

  it('gives an invocation up at its deadline, and lets the process and the others go on', async () => {
    await using environment = await startEnvironment({ handler: 'runtime.wait', maxConcurrency: 2, clock })

    const late = environment.invoke({ for: 400 }, { timeout: 200 })
    const well = environment.invoke({ for: 300 })
    await written(environment, 'waiting', 2)
    clock.pass(200)
    const { outcome, requestId } = await late
    expect(outcome).toBe('timeout')
    clock.pass(100)
    expect((await well).outcome).toBe('response')

    const next = environment.invoke({ for: 200 })
    await written(environment, 'waiting', 3)
    clock.pass(200)
    expect((await next).outcome).toBe('response')
    expect(environment.logs.filter((line) => line.requestId === requestId)).toHaveLength(2)
  })
})

describe('a deployed function', () => {
  it('starts environments as they are needed and uses them again', async () => {
    await using platform = deploy({ handler: 'runtime.echo' })

    const first = await platform.invoke()
    const second = await platform.invoke()
    const cold = await platform.invokeCold()
    const atOnce = await Promise.all([platform.invoke(), platform.invoke(), platform.invoke()])

    expect([first.coldStart, second.coldStart, cold.coldStart]).toEqual([true, false, true])
    expect(second.environment).toBe(first.environment)
    expect(atOnce.map(({ coldStart }) => coldStart)).toEqual([false, false, true])
    expect(platform.environments()).toHaveLength(3)
    expect(platform.coldStarts()).toBe(3)
  })

  it('replaces an environment that was killed', async () => {
    await using platform = deploy({ handler: 'runtime.wait' })

    const killed = await platform.invoke({ for: 2 * patience }, { timeout: 200 })
    const next = await platform.invoke({ for: 1 })

    expectAtLeast(killed.duration, 200)
    expect([killed.outcome, next.outcome, next.coldStart]).toEqual(['killed', 'response', true])
    expect(platform.environments()).toEqual([next.environment])
  })
})

/** Time spent in user and kernel mode, in clock ticks. */
async function cpuTime(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = status.slice(status.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}
