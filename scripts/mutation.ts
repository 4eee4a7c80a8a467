/**
 * Mutation testing: `npm run page -- mutation`, or `npm run page -- mutation circuit redis` for some targets, or `--page` to write
 * the page alone.
 *
 * Runs Stryker once for each target, each with the tests that are about it, and writes `docs/evidence/mutation-testing.md`. What
 * has not changed since the last run is not tested again (`--force`: it is). Ends with an error if a target scores
 * too low or if a survivor has no reason in `mutation-reasons.json`.
 *
 * @module
 */

import { spawn } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { writeMutationPage } from './mutation-page.ts'
import { type MutationTarget, mutationTargets, reportOf } from './mutation-targets.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const stryker = fileURLToPath(new URL('../node_modules/@stryker-mutator/core/bin/stryker.js', import.meta.url))

const names = process.argv.slice(2)
const unknown = names.filter(
  (name) => !name.startsWith('--') && !mutationTargets.some((target) => target.name === name),
)
if (unknown.length > 0) {
  throw new Error(
    `No such target: ${unknown.join(', ')}. There are ${mutationTargets.map(({ name }) => name).join(', ')}.`,
  )
}

if (!names.includes('--page')) {
  const chosen = names.filter((name) => !name.startsWith('--'))
  const targets = mutationTargets.filter(({ name }) => chosen.length === 0 || chosen.includes(name))
  const servers = await startServers(targets)
  try {
    for (const target of targets) await mutate(target, servers.environment)
  } finally {
    await servers.stop()
  }
}
const complaints = await writeMutationPage(root)
for (const complaint of complaints) console.error(complaint)
if (complaints.length > 0) process.exitCode = 1

async function mutate(target: MutationTarget, environment: Record<string, string>): Promise<void> {
  console.log(`\n${target.file}`)
  await mkdir(`${root}/reports/mutation`, { recursive: true })
  const incremental = `reports/mutation/${target.name}.incremental.json`
  const args = [stryker, 'run', '--incremental', '--incrementalFile', incremental]
  if (names.includes('--force')) args.push('--force')
  const child = spawn(process.execPath, args, {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      ...environment,
      MUTATION_FILE: target.file,
      MUTATION_TESTS: target.tests.join(),
      MUTATION_REPORT: reportOf(target),
      MUTATION_LEFT_OUT: target.leftOut?.source ?? '',
      MUTATION_TIMEOUT: String(target.timeout ?? 5_000),
    },
  })
  const code = await new Promise((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`Stryker ended with code ${code}.`)
}

interface Servers {
  readonly environment: Record<string, string>
  stop(): Promise<void>
}

/** One server for the whole run: one for each mutant would take longer than all of its tests. */
async function startServers(targets: readonly MutationTarget[]): Promise<Servers> {
  const environment: Record<string, string> = {}
  const stops: (() => Promise<void>)[] = []
  const needs = (server: string) => targets.some((target) => target.server === server)
  if (needs('dynamodb')) {
    const { startDynamoDBLocal } = await import('../__tests__/support/dynamodb-local.ts')
    const server = await startDynamoDBLocal()
    environment['RUNNING_DYNAMODB_PORT'] = new URL(server.endpoint).port
    stops.push(() => server.stop())
  }
  if (needs('redis')) {
    const { startRedis } = await import('../__tests__/support/redis-server.ts')
    const server = await startRedis()
    environment['RUNNING_REDIS_PORT'] = String(server.port)
    stops.push(() => server.stop())
  }
  return {
    environment,
    stop: async () => {
      for (const stop of stops) await stop()
    },
  }
}
