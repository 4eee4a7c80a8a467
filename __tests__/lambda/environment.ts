/**
 * Execution environments of Lambda on this machine: each is a process of Lambda's own runtime client with a handler in
 * it, treated as Lambda treats it: frozen between invocations, killed at the deadline, told of its end or not.
 *
 * @module
 */

import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { installLambdaRuntimeClient } from '../../scripts/lambda-runtime-client.ts'
import { patience } from '../support/time.ts'
import type { Clock } from './clock.ts'
import { throttle } from './duty-cycle.ts'
import type { LogLine } from './log-line.ts'
import { type Answer, type Chunk, type ReportedError, startRuntimeApi } from './runtime-api.ts'
import { type Exit, startRuntimeProcess } from './runtime-process.ts'

export interface EnvironmentOptions {
  /** File and export as in Lambda's setting, for instance `payment.handler` for `handlers/payment.ts`. */
  readonly handler: string
  /** The longest that an invocation may take, in milliseconds. Default: a minute, which no machine's stall reaches. */
  readonly timeout?: number
  /** The longest that the start may take, in milliseconds. Default: a minute. */
  readonly initTimeout?: number
  /** The process, its deadlines and its end go by this clock. Default: by the real one. */
  readonly clock?: Clock
  /** Further environment variables; nothing of this process's own is passed on. */
  readonly variables?: Readonly<Record<string, string>>
  /** Whether the process is frozen whenever it has nothing to do, as Lambda does. Default: unless `maxConcurrency` is given. */
  readonly freezes?: boolean
  /** As on Lambda Managed Instances: so many invocations at once, nothing is frozen, and timeouts are not enforced. */
  readonly maxConcurrency?: number
  /** With `maxConcurrency`: threads that share the invocations. Default: 1 (Lambda: 8 for each CPU). */
  readonly workers?: number
  /** Default: `tested`. */
  readonly functionName?: string
  /** The part of a processor that the process has while it starts, from 0 to 1, with `freezes: false`. Default: all of it. */
  readonly initCpu?: number
}

export interface InvokeOptions {
  /** In milliseconds, instead of the environment's. */
  readonly timeout?: number
  /** The part of a processor that the process has meanwhile, from 0 to 1, with `freezes: false`. Default: all of it. */
  readonly cpu?: number
  /** Called for each piece of a streamed response as it arrives. */
  readonly onChunk?: (chunk: Chunk) => void
  /** Called when the response is complete; the process may still have something to do. */
  readonly onAnswer?: () => void
}

/**
 * How an invocation ended: `response` and `error` were answered by the handler, `killed` by Lambda at the deadline,
 * `exited` with a process that ended by itself. `timeout` occurs with `maxConcurrency` only, where the process goes on.
 */
export type Outcome = 'response' | 'error' | 'killed' | 'exited' | 'timeout'

export interface InvocationResult {
  readonly outcome: Outcome
  readonly requestId: string
  /** What a buffered response holds, parsed. */
  readonly payload: unknown
  /** The response as text; of a streamed one what came before it broke off. */
  readonly body: string
  /** Of a streamed response. */
  readonly chunks: readonly Chunk[]
  readonly contentType: string
  readonly error: ReportedError | undefined
  /** From the moment when the process got the event until it had answered or ended, in milliseconds. */
  readonly duration: number
  /** What was written meanwhile; with `maxConcurrency` only lines with this request's id. */
  readonly logs: readonly LogLine[]
}

export interface Shutdown extends Exit {
  /** From the first signal to the end of the process, in milliseconds. */
  readonly duration: number
}

export interface ExecutionEnvironment extends AsyncDisposable {
  readonly pid: number
  /** From the start of the process until it first asked for an invocation, in milliseconds. */
  readonly initDuration: number
  /** Everything that the process has written. */
  readonly logs: readonly LogLine[]
  /** Resolves when the process has ended, in whichever way. */
  readonly ended: Promise<Exit>
  /** How the process has ended, or undefined while it lives. */
  exit(): Exit | undefined
  /** Whether another invocation could be taken now. */
  available(): boolean
  /**
   * Hands an event to the process; resolves when it has answered and asked for the next one, or has ended.
   *
   * @throws if it has ended before, or is busy
   */
  invoke(event?: unknown, options?: InvokeOptions): Promise<InvocationResult>
  /** Stops the process where it is; resolves when it stands still. */
  freeze(): Promise<void>
  /** Lets it go on, as the next invocation does. */
  thaw(): Promise<void>
  /**
   * Ends it as Lambda does: SIGTERM, and SIGKILL after `grace` milliseconds. Lambda gives 500 to a function with an
   * internal extension, 2 000 to one with an external, and sends no SIGTERM without extensions: that is 0. Default: 500.
   */
  shutdown(options?: { readonly grace?: number }): Promise<Shutdown>
  /** Kills the process if it lives, and removes what it has left. */
  stop(): Promise<void>
}

/** The handler could not be loaded, or did not become ready in time. */
export class InitError extends Error {
  override readonly name = 'InitError'
  /** What the runtime client reported; undefined if the process died or was killed without a word. */
  readonly reported: ReportedError | undefined
  readonly logs: readonly LogLine[]

  constructor(message: string, reported: ReportedError | undefined, logs: readonly LogLine[]) {
    super(`${message}\n${logs.map(({ text }) => text).join('\n')}`)
    this.reported = reported
    this.logs = logs
  }
}

/**
 * Starts a process with the handler in it; resolves when it is ready for its first invocation. Builds Lambda's runtime
 * client if need be.
 *
 * @throws InitError if it does not become ready
 */
export async function startEnvironment(options: EnvironmentOptions): Promise<ExecutionEnvironment> {
  const { timeout: usualTimeout = patience, initTimeout = patience, maxConcurrency, workers = 1 } = options
  const { handler, functionName = 'tested', variables = {}, clock } = options
  const { now, after } = clock ?? realTime
  const enforced = maxConcurrency === undefined
  const freezes = options.freezes ?? enforced
  await installLambdaRuntimeClient()

  const { promise: ready, resolve: settleInit } = Promise.withResolvers<Problem | undefined>()
  let initDuration = 0
  let running = 0
  let onNext = () => {}
  const api = await startRuntimeApi({
    functionName,
    now,
    onIdle: () => {
      initDuration ||= performance.now() - startedAt
      if (api.waiting() >= workers) settleInit(undefined)
      onNext()
    },
    onInitError: (reported) => settleInit({ message: reported.errorMessage, reported }),
  })
  const startedAt = performance.now()
  const runtime = await startRuntimeProcess({
    handler,
    functionName,
    variables,
    address: api.address,
    clock: clock?.file,
    concurrency: maxConcurrency === undefined ? undefined : { max: maxConcurrency, workers },
  })
  const { ended, exit } = runtime
  const endThrottle = options.initCpu === undefined ? undefined : throttle(runtime.pid, options.initCpu)

  async function stop(): Promise<void> {
    await Promise.all([runtime.kill(), api.stop()])
  }

  async function thaw(): Promise<void> {
    await clock?.endFreeze(runtime.pid)
    runtime.thaw()
  }

  const available = () => exit() === undefined && running < (maxConcurrency ?? 1)

  async function invoke(
    event?: unknown,
    { timeout = usualTimeout, cpu, onChunk, onAnswer }: InvokeOptions = {},
  ): Promise<InvocationResult> {
    const past = exit()
    if (past) throw new Error(`The environment has ended: ${describe(past)}`)
    if (!available()) throw new Error('The environment is busy')
    const requestId = randomUUID()
    const firstLine = runtime.logs.length
    const expired = Promise.withResolvers<undefined>()
    let killed = false
    let startedAt = performance.now()
    let callOffDeadline = () => {}
    running += 1
    const letRun = cpu === undefined ? undefined : throttle(runtime.pid, cpu)
    const answered = api.invoke({
      requestId,
      event,
      timeout,
      ...(onChunk ? { onChunk } : {}),
      onStart: () => {
        startedAt = performance.now()
        const end = (): void => {
          killed = enforced
          if (enforced) runtime.kill()
          else expired.resolve(undefined)
        }
        const callOffs = [after(timeout, end)]
        // A handler that waits for a time which never comes fails its test.
        if (clock) callOffs.push(realTime.after(patience, end))
        callOffDeadline = () => {
          for (const callOff of callOffs) callOff()
        }
      },
    })
    if (runtime.frozen()) await thaw()
    const answer = await Promise.race([answered, expired.promise, ended.then(() => undefined)])
    const duration = performance.now() - startedAt
    if (answer) onAnswer?.()
    const outcome = outcomeOf(answer, killed, exit())
    const chunks = answer?.chunks ?? api.chunksOf(requestId)
    if (enforced && !exit()) await Promise.race([ended, untilIdle()])
    callOffDeadline()
    letRun?.()
    if (freezes && !exit()) await runtime.freeze()
    running -= 1
    // What it wrote before it answered is in the pipe, and is read in the same turn at the latest.
    await nextTurn()
    const own = runtime.logs.slice(firstLine)
    return {
      outcome,
      requestId,
      payload: answer && !answer.streamed && answer.body !== '' ? JSON.parse(answer.body) : undefined,
      body: answer?.body ?? chunks.map(({ text }) => text).join(''),
      chunks: answer && !answer.streamed ? [] : chunks,
      contentType: answer?.contentType ?? '',
      error: answer?.error,
      duration,
      logs: enforced ? own : own.filter((line) => line.requestId === requestId),
    }
  }

  async function untilIdle(): Promise<void> {
    while (api.waiting() === 0) {
      await new Promise<void>((resolve) => {
        onNext = resolve
      })
    }
  }

  async function shutdown({ grace = 500 }: { readonly grace?: number } = {}): Promise<Shutdown> {
    const from = performance.now()
    if (runtime.frozen()) await thaw()
    if (grace > 0) {
      runtime.terminate()
      const callOffKill = after(grace, () => void runtime.kill())
      await ended
      callOffKill()
    }
    const how = await runtime.kill()
    const duration = performance.now() - from
    await stop()
    return { ...how, duration }
  }

  const died = ended.then((how): Problem => ({ message: `It ended before it was ready: ${describe(how)}` }))
  const callOffInit = realTime.after(initTimeout, () =>
    settleInit({ message: `It was not ready after ${initTimeout} ms` }),
  )
  const problem = await Promise.race([ready, died])
  callOffInit()
  endThrottle?.()
  if (problem) {
    await stop()
    throw new InitError(problem.message, problem.reported, runtime.logs)
  }
  if (freezes) await runtime.freeze()
  const { pid, logs, freeze } = runtime
  return {
    pid,
    initDuration,
    logs,
    ended,
    exit,
    available,
    invoke,
    freeze,
    thaw,
    shutdown,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

interface Problem {
  readonly message: string
  readonly reported?: ReportedError
}

function outcomeOf(answer: Answer | undefined, killed: boolean, exit: Exit | undefined): Outcome {
  if (answer) return answer.error ? 'error' : 'response'
  if (exit) return killed ? 'killed' : 'exited'
  return 'timeout'
}

function describe({ code, signal }: Exit): string {
  return signal ? `killed by ${signal}` : `exit code ${code}`
}

const realTime: Pick<Clock, 'now' | 'after'> = {
  now: Date.now,
  after: (time, callback) => {
    const timer = setTimeout(callback, time)
    return () => clearTimeout(timer)
  },
}
