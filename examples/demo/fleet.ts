/**
 * The processes of the demo. Each runs a few instances of a fleet.
 *
 * @module
 */

import { type ChildProcess, fork } from 'node:child_process'
import { devNull } from 'node:os'
import type { Message, Order } from './messages.ts'
import type { Fleet } from './recording.ts'

/** How long an instance may take to end when it is asked to, in milliseconds. */
const grace = 2_000

/** A process that runs some instances of the handler. */
export class Host {
  readonly #name: string
  readonly #fleet: Fleet
  readonly #child: ChildProcess
  readonly #onMessage: (fleet: Fleet, message: Message) => void
  readonly #ended: Promise<void>
  /** Rejects when the process ends before it was asked to. */
  readonly #died = Promise.withResolvers<never>()
  readonly #awaited = new Map<Message['type'], () => void>()
  #reason: string | undefined
  #isStopping = false

  /**
   * Starts the process.
   *
   * @param numbers those of its instances
   * @param env what it needs to know beyond the environment of this process
   * @param onMessage told of everything that it reports
   */
  constructor(
    fleet: Fleet,
    numbers: readonly number[],
    env: Readonly<Record<string, string>>,
    onMessage: (fleet: Fleet, message: Message) => void,
  ) {
    this.#fleet = fleet
    this.#name = `The process of instances ${numbers[0]} to ${numbers.at(-1)} ${fleetNames[fleet]}`
    this.#onMessage = onMessage
    this.#died.promise.catch(() => {})
    this.#child = fork(new URL('./instance.ts', import.meta.url), {
      env: { ...inherited(), ...env, DEMO_FLEET: fleet, DEMO_INSTANCES: numbers.join() },
      // Its errors arrive as messages; a stack trace would show where this machine keeps its files.
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    })
    const ended = Promise.withResolvers<void>()
    this.#ended = ended.promise
    this.#child.on('exit', (code, signal) => {
      this.#end(code, signal)
      ended.resolve()
    })
    this.#child.on('error', (error) => {
      this.#reason = error.message
      this.#died.reject(new Error(`${this.#name} failed: ${error.message}`))
    })
    this.#child.on('message', (message) => this.#take(message as Message))
  }

  /** Resolves when the modules are loaded. */
  loaded(): Promise<void> {
    return this.#expect('loaded')
  }

  /** Invokes each handler until service and store have answered. */
  warm(): Promise<void> {
    const warm = this.#expect('warm')
    this.#order({ type: 'warm' })
    return warm
  }

  /** Invokes the handlers at a steady rate; resolves after the last invocation. */
  run(schedule: Omit<Extract<Order, { type: 'run' }>, 'type'>): Promise<void> {
    const done = this.#expect('done')
    this.#order({ type: 'run', ...schedule })
    return done
  }

  /** Ends the process. */
  async stop(): Promise<void> {
    this.#isStopping = true
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    if (this.#child.connected) this.#child.disconnect()
    else this.#child.kill('SIGKILL')
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), grace)
    await this.#ended
    clearTimeout(timer)
  }

  #order(order: Order): void {
    this.#child.send(order, () => {})
  }

  #expect(type: Message['type']): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#awaited.set(type, resolve)
    return Promise.race([promise, this.#died.promise])
  }

  #take(message: Message): void {
    if (message.type === 'failed') this.#reason = message.reason
    this.#onMessage(this.#fleet, message)
    this.#awaited.get(message.type)?.()
  }

  #end(code: number | null, signal: string | null): void {
    if (this.#isStopping) return
    const how = this.#reason ?? (signal === null ? `it exited with code ${code}` : `it was ended by ${signal}`)
    this.#died.reject(new Error(`${this.#name} stopped before the end: ${how}`))
  }
}

/** For people. */
const fleetNames: Readonly<Record<Fleet, string>> = {
  none: 'without a breaker',
  alone: 'with a circuit of their own',
  shared: 'of the shared circuit',
}

/** The environment without what could lead the AWS SDK or `fetch` away from this machine's own servers. */
function inherited(): NodeJS.ProcessEnv {
  const {
    AWS_PROFILE: _profile,
    AWS_SESSION_TOKEN: _token,
    AWS_ENDPOINT_URL: _endpoint,
    AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: _ignore,
    AWS_LAMBDA_FUNCTION_NAME: _function,
    NODE_USE_ENV_PROXY: _proxy,
    ...rest
  } = process.env
  return { ...rest, AWS_CONFIG_FILE: devNull, AWS_SHARED_CREDENTIALS_FILE: devNull }
}
