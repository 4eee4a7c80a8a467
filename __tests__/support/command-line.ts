/**
 * Runs the program `mcb` as its users do, in a process of its own.
 *
 * @module
 */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { join } from 'node:path'
import { waitFor } from './time.ts'

const program = join(import.meta.dirname, '../../src/cli/main.ts')

/** How a run of the program ended. */
export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** The environment of a program: without the variables of whoever runs the tests. */
function environment(variables: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], HOME: process.env['HOME'], ...variables }
}

/** Runs `mcb` with these arguments to its end. */
export async function mcb(variables: Readonly<Record<string, string>>, ...args: readonly string[]): Promise<Ended> {
  const running = startMcb(variables, ...args)
  running.child.stdin.end()
  return running.ended
}

/** A run of the program that goes on. */
export interface Running {
  readonly child: ChildProcessWithoutNullStreams
  /** What it has printed so far. */
  readonly output: () => string
  readonly ended: Promise<Ended>
  /** Waits until it has printed this. */
  readonly printed: (text: string | RegExp) => Promise<string>
  /** Ends it as Ctrl+C does. */
  readonly interrupt: () => Promise<Ended>
}

/** Starts `mcb` with these arguments. */
export function startMcb(variables: Readonly<Record<string, string>>, ...args: readonly string[]): Running {
  return started(spawn(process.execPath, [program, ...args], { env: environment(variables) }))
}

/** Starts `mcb` on a terminal of its own, of 100 columns and 24 rows. */
export function startMcbOnTerminal(variables: Readonly<Record<string, string>>, ...args: readonly string[]): Running {
  const quoted = [process.execPath, program, ...args].map((part) => `'${part.replaceAll("'", "'\\''")}'`).join(' ')
  const command = `stty cols 100 rows 24; exec ${quoted}`
  const env = environment({ TERM: 'xterm', ...variables })
  return started(spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], { env }))
}

function started(child: ChildProcessWithoutNullStreams): Running {
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
  })
  const { promise: ended, resolve, reject } = Promise.withResolvers<Ended>()
  child.once('error', reject)
  child.once('close', (code) => resolve({ code, stdout, stderr }))
  return {
    child,
    output: () => stdout,
    ended,
    printed: (text) =>
      waitFor(
        `mcb has printed ${text}`,
        () => `${stdout}${stderr}`,
        (output) => (typeof text === 'string' ? output.includes(text) : text.test(output)),
      ),
    interrupt: () => {
      child.kill('SIGINT')
      return ended
    },
  }
}
