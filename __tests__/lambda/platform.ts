import {
  type EnvironmentOptions,
  type ExecutionEnvironment,
  type InvocationResult,
  type InvokeOptions,
  startEnvironment,
} from './environment.ts'

export interface PlatformResult extends InvocationResult {
  readonly environment: ExecutionEnvironment
  /** Whether it was the first invocation of its environment. */
  readonly coldStart: boolean
}

/** A function with as many execution environments as its invocations need. */
export interface Platform extends AsyncDisposable {
  /** Those that live, in the order in which they were started. */
  environments(): readonly ExecutionEnvironment[]
  /** How many environments have been started. */
  coldStarts(): number
  /** Invokes the function in an environment that is idle, or else in a new one. */
  invoke(event?: unknown, options?: InvokeOptions): Promise<PlatformResult>
  /** Invokes the function in a new environment, whether or not another one is idle. */
  invokeCold(event?: unknown, options?: InvokeOptions): Promise<PlatformResult>
  /** Kills all environments and removes what they have left. */
  stop(): Promise<void>
}

/** Deploys a function: nothing is started before it is invoked. All of its environments are alike. */
export function deploy(definition: EnvironmentOptions): Platform {
  const started: ExecutionEnvironment[] = []
  let coldStarts = 0

  const living = () => started.filter((environment) => environment.exit() === undefined)

  async function invokeIn(
    environment: ExecutionEnvironment,
    coldStart: boolean,
    event: unknown,
    options: InvokeOptions | undefined,
  ): Promise<PlatformResult> {
    return { ...(await environment.invoke(event, options)), environment, coldStart }
  }

  async function invokeCold(event?: unknown, options?: InvokeOptions): Promise<PlatformResult> {
    coldStarts += 1
    const environment = await startEnvironment(definition)
    started.push(environment)
    return invokeIn(environment, true, event, options)
  }

  async function stop(): Promise<void> {
    await Promise.all(started.map((environment) => environment.stop()))
  }

  return {
    environments: living,
    coldStarts: () => coldStarts,
    invoke: async (event, options) => {
      const idle = living().find((environment) => environment.available())
      return idle ? invokeIn(idle, false, event, options) : invokeCold(event, options)
    },
    invokeCold,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
