/**
 * The configuration of a deployed Lambda function.
 *
 * @module
 */

import type { Environment } from '../settings/problems.ts'
import { UsageError } from './arguments.ts'

/** The settings of a deployed function that a breaker heeds. */
export interface DeployedFunction {
  readonly name: string
  /** Its environment variables, and its own name as Lambda sets it. */
  readonly env: Environment
  /** Its timeout, in milliseconds. */
  readonly timeout: number
  /** Its memory, in MB. */
  readonly memory: number | undefined
}

/** The parts of `@aws-sdk/client-lambda` that are used. */
interface LambdaLibrary {
  readonly LambdaClient: new (config: object) => { send(command: unknown): Promise<unknown>; destroy(): void }
  readonly GetFunctionConfigurationCommand: new (input: { FunctionName: string }) => unknown
}

interface FunctionConfiguration {
  readonly FunctionName?: string
  readonly Environment?: { readonly Variables?: Environment; readonly Error?: { readonly Message?: string } }
  readonly Timeout?: number
  readonly MemorySize?: number
}

/**
 * Asks Lambda for a function's configuration. Needs `@aws-sdk/client-lambda` and the permission
 * `lambda:GetFunctionConfiguration`.
 *
 * @param name the function's name or ARN
 */
export async function readFunction(name: string): Promise<DeployedFunction> {
  const { LambdaClient, GetFunctionConfigurationCommand } = await loadLibrary()
  const client = new LambdaClient({ maxAttempts: 2 })
  try {
    const command = new GetFunctionConfigurationCommand({ FunctionName: name })
    const { FunctionName, Environment, Timeout = 3, MemorySize } = (await client.send(command)) as FunctionConfiguration
    if (Environment?.Error !== undefined) {
      throw new Error(`its environment variables cannot be decrypted: ${Environment.Error.Message}`)
    }
    const own = FunctionName ?? name
    const env = { ...Environment?.Variables, AWS_LAMBDA_FUNCTION_NAME: own }
    return { name: own, env, timeout: Timeout * 1_000, memory: MemorySize }
  } catch (error) {
    const { name: kind, message } = error as Error
    throw new UsageError(`The configuration of the function ${name} cannot be read: ${kind}: ${message}`, {
      cause: error,
    })
  } finally {
    client.destroy()
  }
}

async function loadLibrary(): Promise<LambdaLibrary> {
  // A name that no bundler and no type checker follows: the library is needed for this option only.
  const library = '@aws-sdk/client-lambda'
  try {
    return (await import(library)) as LambdaLibrary
  } catch (cause) {
    const message =
      '--function needs the package @aws-sdk/client-lambda. Install it beside this one: npm install @aws-sdk/client-lambda'
    throw new UsageError(message, { cause })
  }
}
