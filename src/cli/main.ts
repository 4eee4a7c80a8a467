#!/usr/bin/env node

/**
 * The command line `middy-circuit-breaker`, in short `mcb`.
 *
 * @module
 */

import { realpathSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { isCircuitBreakerError } from '../errors.ts'
import { type CommandName, readArguments, UsageError } from './arguments.ts'
import { deed, explainCommand, log, ls, type Run, show } from './commands.ts'
import { type Console, paintFor, safe } from './console.ts'
import { placeOf } from './place.ts'

const runs: Readonly<Record<CommandName, () => Run | Promise<Run>>> = {
  ls: () => ls,
  show: () => show,
  explain: () => explainCommand,
  log: () => log,
  open: () => deed('open'),
  close: () => deed('close'),
  reset: () => deed('reset'),
  doctor: async () => (await import('./doctor.ts')).doctor,
  watch: async () => (await import('./watch.ts')).watch,
  serve: async () => (await import('./serve.ts')).serve,
}

/**
 * Runs the program.
 *
 * @param args without the program's own name
 * @returns the exit code: 0 all is well, 1 it failed, 2 wrong use, 3 a circuit that was looked at refuses calls
 */
export async function main(args: readonly string[], console: Console): Promise<number> {
  const { stdout, stderr, env } = console
  try {
    const request = readArguments(args)
    if ('help' in request) {
      stdout.write(`${request.help}\n`)
      return 0
    }
    const place = await placeOf(request.values, env)
    try {
      const run = await runs[request.command]()
      return await run(request, place, console)
    } finally {
      await place.storage.close?.()
    }
  } catch (error) {
    const isUsage = error instanceof UsageError
    if (!isUsage && !isCircuitBreakerError(error)) throw error
    stderr.write(`${paintFor(stderr, env)('red', 'mcb:')} ${linesOf(error.message)}\n`)
    return isUsage ? 2 : 1
  }
}

/** A message may have several lines, and parts that came from a store. */
function linesOf(message: string): string {
  return message.split('\n').map(safe).join('\n')
}

function isProgram(): boolean {
  const [, file] = process.argv
  return file !== undefined && pathToFileURL(realpathSync(file)).href === import.meta.url
}

if (isProgram()) {
  const interrupted = new AbortController()
  process.once('SIGINT', () => interrupted.abort())
  process.once('SIGTERM', () => interrupted.abort())
  // A reader such as `head` may close the pipe.
  process.stdout.on('error', () => process.exit(0))
  process.removeAllListeners('warning')
  process.on('warning', ({ name, message }) => {
    if (name === 'CircuitBreakerWarning') process.stderr.write(`${linesOf(message)}\n`)
  })
  const { stdout, stderr, stdin, env } = process
  const console: Console = { stdout, stderr, stdin, env, now: Date.now, signal: interrupted.signal }
  void main(process.argv.slice(2), console).then((code) => {
    process.exitCode = code
  })
}
