/**
 * A process of Lambda's runtime client with a handler in it.
 *
 * It runs the TypeScript sources. The runtime client loads JavaScript only, so that each process gets a task folder with
 * a module in it that exports everything from the handler's. What Node compiles on the way is kept in `.cache/`, or each
 * start would take three times as long; `NODE_DISABLE_COMPILE_CACHE` switches that off.
 *
 * @module
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { compileCache, lambdaRuntimeClient } from '../../scripts/lambda-runtime-client.ts'
import { type LogLine, parseLogLine } from './log-line.ts'

export interface RuntimeProcessOptions {
  /** File and export, for instance `payment.handler` for `handlers/payment.ts`. */
  readonly handler: string
  /** Of the server that it asks for invocations. */
  readonly address: string
  readonly functionName: string
  readonly variables: Readonly<Record<string, string>>
  /** The file of a clock that the process goes by; undefined for the real one. */
  readonly clock: string | undefined
  /** How many invocations it may get at once, in how many threads; undefined for one at a time. */
  readonly concurrency: { readonly max: number; readonly workers: number } | undefined
}

const heldTime = new URL('./held-time.ts', import.meta.url).href

/** How a process ended. */
export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface RuntimeProcess {
  readonly pid: number
  /** What it has written to its standard output and error. */
  readonly logs: readonly LogLine[]
  /** Resolves when it has ended, in whichever way, and all that it wrote has been read. */
  readonly ended: Promise<Exit>
  /** How it has ended, or undefined while it lives. */
  exit(): Exit | undefined
  frozen(): boolean
  /** Resolves when it stands still. */
  freeze(): Promise<void>
  thaw(): void
  /** Tells it to end. */
  terminate(): void
  /** Ends it, frozen or not; resolves when it has ended. */
  kill(): Promise<Exit>
}

/** Starts a process, which ends with this one. Its task folder is removed when it has ended. */
export async function startRuntimeProcess(options: RuntimeProcessOptions): Promise<RuntimeProcess> {
  const taskRoot = await makeTaskRoot(options.handler)
  const logs: LogLine[] = []
  const child = spawn(
    process.execPath,
    [...(options.clock === undefined ? [] : ['--import', heldTime]), lambdaRuntimeClient],
    {
      cwd: taskRoot,
      env: environmentVariables(options, taskRoot),
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  const pid = child.pid as number
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => logs.push(parseLogLine(line)))
  }
  let exit: Exit | undefined
  let frozen = false
  const release = endWithParent(pid, taskRoot)
  const ended = new Promise<Exit>((resolve) => {
    child.once('close', async (code, signal) => {
      exit = { code, signal }
      release()
      await rm(taskRoot, { recursive: true, force: true })
      resolve(exit)
    })
  })
  keepParent(child, 'unref')
  return {
    pid,
    logs,
    ended,
    exit: () => exit,
    frozen: () => frozen,
    freeze: async () => {
      frozen = true
      child.kill('SIGSTOP')
      while (frozen && !(exit ?? (await standsStill(pid)))) await nextTurn()
    },
    thaw: () => {
      frozen = false
      child.kill('SIGCONT')
    },
    terminate: () => void child.kill('SIGTERM'),
    kill: () => {
      keepParent(child, 'ref')
      child.kill('SIGKILL')
      return ended
    },
  }
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
  { handler, address, functionName, variables, clock, concurrency }: RuntimeProcessOptions,
  taskRoot: string,
): Record<string, string> {
  return {
    AWS_LAMBDA_RUNTIME_API: address,
    _HANDLER: handler,
    LAMBDA_TASK_ROOT: taskRoot,
    AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs24.x',
    AWS_LAMBDA_INITIALIZATION_TYPE: concurrency ? 'lambda-managed-instances' : 'on-demand',
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
    ...(clock !== undefined && { CLOCK: clock }),
    ...(concurrency && {
      AWS_LAMBDA_MAX_CONCURRENCY: String(concurrency.max),
      AWS_LAMBDA_NODEJS_WORKER_COUNT: String(concurrency.workers),
      // Each worker that waits for an invocation holds one thread of the pool, whose usual size is 4.
      UV_THREADPOOL_SIZE: String(concurrency.workers + 4),
    }),
    ...variables,
  }
}

/**
 * Sees to it that the process ends with this one, also when this one is killed: a shell waits for a word from here, and
 * does it if the pipe ends without one. Returns what gives that word.
 */
function endWithParent(pid: number, taskRoot: string): () => void {
  const guard = spawn('sh', ['-c', 'read -r word || { kill -9 "$0"; rm -rf "$1"; }', String(pid), taskRoot], {
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
