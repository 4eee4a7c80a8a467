/**
 * Execution environments of Lambda on this machine: each is a process of Lambda's own runtime client with a handler in
 * it, treated as Lambda treats it: frozen between invocations, killed at the deadline, told of its end or not.
 *
 * The process runs the TypeScript sources. The runtime client loads JavaScript only, so that each environment gets a
 * task folder with a module in it that exports everything from the handler's. What Node compiles on the way is kept in
 * `.cache/`, or each start would take three times as long; `NODE_DISABLE_COMPILE_CACHE` switches that off.
 *
 * @module
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { compileCache, installLambdaRuntimeClient, lambdaRuntimeClient } from '../../scripts/lambda-runtime-client.ts'
import { type LogLine, parseLogLine } from './log-line.ts'
import { type Answer, type Chunk, type ReportedError, startRuntimeApi } from './runtime-api.ts'

export interface EnvironmentOptions {
  /** File and export as in Lambda's setting, for instance `payment.handler` for `handlers/payment.ts`. */
  readonly handler: string
  /** The longest that an invocation may take, in milliseconds. Default: 3 000, as Lambda's. */
  readonly timeout?: number
  /** The longest that the start may take, in milliseconds. Default: 10 000, as Lambda's. */
  readonly initTimeout?: number
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
}

export interface InvokeOptions {
  /** In milliseconds, instead of the environment's. */
  readonly timeout?: number
  /** Called for each piece of a streamed response as it arrives. */
  readonly onChunk?: (chunk: Chunk) => void
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

/** How a process ended. */
export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
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
  thaw(): void
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
  const { timeout: usualTimeout = 3_000, initTimeout = 10_000, maxConcurrency, workers = 1 } = options
  const freezes = options.freezes ?? maxConcurrency === undefined
  await installLambdaRuntimeClient()

  const { promise: ready, resolve: isReady } = Promise.withResolvers<ReportedError | undefined>()
  let initDuration = 0
  let onNext = () => {}
  const api = await startRuntimeApi({
    functionName: options.functionName ?? 'tested',
    onIdle: () => {
      initDuration ||= performance.now() - startedAt
      if (api.waiting() >= workers) isReady(undefined)
      onNext()
    },
    onInitError: isReady,
  })
  const taskRoot = await makeTaskRoot(options.handler)
  const logs: LogLine[] = []
  const startedAt = performance.now()
  const { child, ended } = startProcess(environmentVariables(options, taskRoot, api.address), taskRoot, logs)
  const pid = child.pid as number

  let exit: Exit | undefined
  let running = 0
  let frozen = false
  ended.then((how) => {
    exit = how
  })

  function kill(): void {
    keepParent(child, 'ref')
    child.kill('SIGKILL')
  }

  async function stop(): Promise<void> {
    kill()
    await ended
    await Promise.all([api.stop(), rm(taskRoot, { recursive: true, force: true })])
  }

  async function freeze(): Promise<void> {
    frozen = true
    child.kill('SIGSTOP')
    while (frozen && !(exit ?? (await standsStill(pid)))) await nextTurn()
  }

  function thaw(): void {
    frozen = false
    child.kill('SIGCONT')
  }

  const available = () => exit === undefined && running < (maxConcurrency ?? 1)

  async function invoke(
    event?: unknown,
    { timeout = usualTimeout, onChunk }: InvokeOptions = {},
  ): Promise<InvocationResult> {
    if (!available()) throw new Error(exit ? `The environment has ended: ${describe(exit)}` : 'The environment is busy')
    const requestId = randomUUID()
    const firstLine = logs.length
    const expired = Promise.withResolvers<void>()
    let killed = false
    let handedOverAt = performance.now()
    let deadline: NodeJS.Timeout | undefined
    running += 1
    if (frozen) thaw()
    const answered = api.invoke({
      requestId,
      event,
      timeout,
      ...(onChunk ? { onChunk } : {}),
      onStart: () => {
        handedOverAt = performance.now()
        deadline = setTimeout(() => {
          expired.resolve()
          if (maxConcurrency !== undefined) return
          killed = true
          kill()
        }, timeout)
      },
    })
    const enforced = maxConcurrency === undefined ? [] : [expired.promise.then(() => undefined)]
    const answer = await Promise.race([answered, ended.then(() => undefined), ...enforced])
    const duration = performance.now() - handedOverAt
    const outcome = outcomeOf(answer, killed, exit)
    const chunks = answer?.chunks ?? api.chunksOf(requestId)
    if (maxConcurrency === undefined && exit === undefined) await Promise.race([ended, untilIdle()])
    clearTimeout(deadline)
    if (freezes && exit === undefined) await freeze()
    running -= 1
    // What it wrote before it answered is in the pipe, and is read in the same turn at the latest.
    await nextTurn()
    const own = logs.slice(firstLine)
    return {
      outcome,
      requestId,
      payload: answer && !answer.streamed ? parsed(answer.body) : undefined,
      body: answer?.body ?? chunks.map(({ text }) => text).join(''),
      chunks: answer && !answer.streamed ? [] : chunks,
      contentType: answer?.contentType ?? '',
      error: answer?.error,
      duration,
      logs: maxConcurrency === undefined ? own : own.filter((line) => line.requestId === requestId),
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
    if (frozen) thaw()
    if (grace > 0) {
      child.kill('SIGTERM')
      const patience = new AbortController()
      await Promise.race([ended, sleep(grace, undefined, patience)])
      patience.abort()
    }
    kill()
    const how = await ended
    const duration = performance.now() - from
    await stop()
    return { ...how, duration }
  }

  const problem = await Promise.race([
    ready.then((reported) => (reported ? { reported, message: reported.errorMessage } : undefined)),
    ended.then((how) => ({ reported: undefined, message: `It ended before it was ready: ${describe(how)}` })),
    expiry(initTimeout, ready),
  ])
  if (problem) {
    if (problem.reported) await ended
    await stop()
    throw new InitError(problem.message, problem.reported, logs)
  }
  if (freezes) await freeze()
  return {
    pid,
    initDuration,
    logs,
    ended,
    exit: () => exit,
    available,
    invoke,
    freeze,
    thaw,
    shutdown,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

function outcomeOf(answer: Answer | undefined, killed: boolean, exit: Exit | undefined): Outcome {
  if (answer) return answer.error ? 'error' : 'response'
  if (exit) return killed ? 'killed' : 'exited'
  return 'timeout'
}

function describe({ code, signal }: Exit): string {
  return signal ? `killed by ${signal}` : `exit code ${code}`
}

function parsed(body: string): unknown {
  return body === '' ? undefined : JSON.parse(body)
}

async function expiry(
  after: number,
  unless: Promise<unknown>,
): Promise<{ readonly reported: undefined; readonly message: string }> {
  const patience = new AbortController()
  unless.then(() => patience.abort())
  await sleep(after, undefined, patience).catch(() => {})
  return { reported: undefined, message: `It was not ready after ${after} ms` }
}

/** A folder as Lambda unpacks it from a function's archive, but that the handler's code lies elsewhere. */
async function makeTaskRoot(handler: string): Promise<string> {
  const taskRoot = await mkdtemp(join(tmpdir(), 'lambda-task-'))
  const [module = ''] = handler.split('.')
  const source = new URL(`./handlers/${module}.ts`, import.meta.url)
  await writeFile(
    join(taskRoot, `${module}.mjs`),
    `import { flushCompileCache } from 'node:module'\nexport * from '${source.href}'\nflushCompileCache()\n`,
  )
  return taskRoot
}

function environmentVariables(
  { handler, functionName = 'tested', variables, maxConcurrency, workers = 1 }: EnvironmentOptions,
  taskRoot: string,
  address: string,
): Record<string, string> {
  return {
    AWS_LAMBDA_RUNTIME_API: address,
    _HANDLER: handler,
    LAMBDA_TASK_ROOT: taskRoot,
    AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs24.x',
    AWS_LAMBDA_INITIALIZATION_TYPE: maxConcurrency === undefined ? 'on-demand' : 'lambda-managed-instances',
    AWS_LAMBDA_FUNCTION_NAME: functionName,
    AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: '1769',
    AWS_LAMBDA_LOG_GROUP_NAME: `/aws/lambda/${functionName}`,
    AWS_LAMBDA_LOG_STREAM_NAME: `2030/01/01/[$LATEST]${randomUUID().replaceAll('-', '')}`,
    AWS_REGION: 'eu-central-1',
    AWS_DEFAULT_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'local',
    AWS_SECRET_ACCESS_KEY: 'local',
    LANG: 'en_US.UTF-8',
    TZ: ':UTC',
    PATH: '/usr/local/bin:/usr/bin:/bin',
    NODE_COMPILE_CACHE: compileCache,
    ...(maxConcurrency === undefined
      ? {}
      : {
          AWS_LAMBDA_MAX_CONCURRENCY: String(maxConcurrency),
          AWS_LAMBDA_NODEJS_WORKER_COUNT: String(workers),
          // Each worker that waits for an invocation holds one thread of the pool, whose usual size is 4.
          UV_THREADPOOL_SIZE: String(workers + 4),
        }),
    ...variables,
  }
}

function startProcess(
  env: Record<string, string>,
  cwd: string,
  logs: LogLine[],
): { readonly child: ChildProcess; readonly ended: Promise<Exit> } {
  const child = spawn(process.execPath, [lambdaRuntimeClient], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => logs.push(parseLogLine(line)))
  }
  const ended = new Promise<Exit>((resolve) => child.once('close', (code, signal) => resolve({ code, signal })))
  const release = killWithParent(child)
  ended.then(release)
  keepParent(child, 'unref')
  return { child, ended }
}

/**
 * Sees to it that the process ends with this one, also when this one is killed: a shell waits for a word from here, and
 * kills the process if the pipe ends without one. Returns what gives that word.
 */
function killWithParent(child: ChildProcess): () => void {
  const guard = spawn('sh', ['-c', 'read -r word || kill -9 "$0"', String(child.pid)], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  guard.stdin.on('error', () => {})
  guard.unref()
  ;(guard.stdin as unknown as Socket).unref()
  return () => guard.stdin.end('ended\n')
}

/** Whether this process waits for the other: a test that forgets to stop the environment ends all the same, and both with it. */
function keepParent(child: ChildProcess, keep: 'ref' | 'unref'): void {
  child[keep]()
  for (const stream of [child.stdout, child.stderr]) (stream as Socket | null)?.[keep]()
}

/** Whether the process is stopped: a signal takes a moment to reach all of its threads. */
async function standsStill(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  const state = status.slice(status.lastIndexOf(')') + 2, status.lastIndexOf(')') + 3)
  return state === 'T' || state === 'Z' || state === ''
}
