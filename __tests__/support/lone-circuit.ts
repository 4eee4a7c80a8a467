/**
 * One circuit without time and without a store: each answer of the store is the test's.
 *
 * @module
 */

import { Circuit } from '../../src/circuit/circuit.ts'
import type { Replacement, Step, Write } from '../../src/circuit/step.ts'
import type { CircuitOpenError, StateChange } from '../../src/index.ts'
import { type ServiceSettings, serviceSettings } from '../../src/settings/table.ts'
import type { CircuitRecord, WriteResult } from '../../src/storage/contract.ts'
import { circuitRecord } from '../../src/testing/index.ts'

const defaults = Object.fromEntries(
  Object.entries(serviceSettings).map(([name, setting]) => [name, setting.default]),
) as unknown as ServiceSettings

export interface Surroundings {
  readonly settings?: Partial<ServiceSettings>
  readonly isShared?: boolean
  readonly now?: number
}

/** A circuit in a world without time: every answer of the store is the test's. */
export function circuitWith({ settings = {}, isShared = true, now = 1_000 }: Surroundings = {}) {
  let ids = 0
  const world = { now, random: 0, canRead: true, canWrite: true, throttlesWrites: false }
  const events: StateChange[] = []
  const refusals: CircuitOpenError[] = []
  const circuit = new Circuit(
    'stripe',
    { ...defaults, ...settings },
    {
      runtime: { now: () => world.now, random: () => world.random, id: () => `id${++ids}` },
      store: world,
      isShared,
      storageTimeout: 500,
      emit: (change) => events.push(change),
      onRefusing: (error) => refusals.push(error()),
    },
  )
  const read = (record: CircuitRecord | undefined): void => circuit.readAnswered(circuit.begin(), record)
  const send = (write: Write): ((reply: WriteResult) => boolean) => {
    const exchange = circuit.begin()
    circuit.sent(write)
    return (reply) => circuit.answered(write, exchange, reply)
  }
  const fail = (at: number = world.now): void => circuit.callFailed(circuit.period, at, { at, name: 'Error' }, 'r1')
  return { circuit, world, events, refusals, read, send, fail }
}

export const closed = circuitRecord({ version: 'v1', epoch: 'e1' })
/** Under a suspicion that another instance has raised. */
export const suspected = { ...closed, suspectedAt: 900, reporterCount: 1, othersAt: 900 }

export const opened = circuitRecord({
  state: 'OPEN',
  version: 'v2',
  epoch: 'e2',
  generation: 1,
  openedAt: 0,
  retryAt: 10_000,
  resetTimeout: 10_000,
  failureCount: 3,
  lastFailureAt: 0,
  transitions: ['e2'],
})

export function halfOpen(...leases: string[]): CircuitRecord {
  return {
    ...opened,
    state: 'HALF_OPEN',
    version: 'v3',
    epoch: 'e3',
    generation: 2,
    leases: leases.map((id) => ({ id, expiresAt: 40_000 })),
    transitions: ['e2', 'e3'],
  }
}

export function written(step: Step | undefined): Write {
  if (step === undefined || step.kind === 'read') throw new Error(`This is no write: ${JSON.stringify(step)}`)
  return step
}

export function replacement(step: Step | undefined): Replacement {
  if (step?.kind !== 'replace') throw new Error(`This is no replacement: ${JSON.stringify(step)}`)
  return step
}
