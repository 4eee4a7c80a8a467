import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { waitFor } from './time.ts'

export interface FullListener {
  stop(): Promise<void>
}

/** Prints a line when it listens; how long the kernel lets connections queue up is up to it. */
const source = `
require('node:net').createServer().listen({ host: process.argv[1], port: Number(process.argv[2]), backlog: 1 }, () => console.log('listening'))`

/**
 * Listens and never accepts, with a full queue: a connection to it is neither made nor refused, and whoever tries waits as
 * for a host that is not there.
 */
export async function startFullListener(host: string, port: number): Promise<FullListener> {
  const child: ChildProcess = spawn(process.execPath, ['--eval', source, host, String(port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout as NodeJS.ReadableStream, 'data')
  // A stopped process accepts nothing; what is in the queue stays there.
  child.kill('SIGSTOP')
  let queued = 0
  const fillers: Socket[] = Array.from({ length: 8 }, () => createConnection(port, host))
  for (const filler of fillers) filler.on('error', () => {}).on('connect', () => queued++)
  // One more than the backlog is as many as fit.
  await waitFor(
    'the queue is full',
    () => queued,
    (connections) => connections > 1,
  )
  return {
    stop: async () => {
      for (const filler of fillers) filler.destroy()
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}
